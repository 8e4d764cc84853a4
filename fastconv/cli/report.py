"""`fastconv report`: a page that shows every filter of a run."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="RUN.h5")
    parser.add_argument("other", nargs="?", metavar="OTHER.h5", help="a run to show beside it")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report.html"), metavar="PAGE", help="(report.html)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from fastconv.export.report import report

    page = report(arguments.file, arguments.out, arguments.other)
    print(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB): open it in a browser")
    return 0
