"""`fastconv merge`: the files of all shards in, one file out."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="+", metavar="SHARD.h5", help="files or URLs")
    parser.add_argument(
        "-o", "--out", required=True, metavar="RUN.h5", help="the file to make, or a URL"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a finished file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import fastconv

    fastconv.merge(arguments.parts, arguments.out, overwrite=arguments.overwrite).close()
    print(f"{arguments.out}: {len(arguments.parts)} shards joined")
    return 0
