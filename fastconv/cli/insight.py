"""`fastconv insight`: tables about the filters of a finished run."""

from __future__ import annotations

import argparse
from typing import Any

from fastconv.cli.frames import add_csv, show
from fastconv.errors import InputError

TABLES = (
    *("responses", "classes", "outcomes", "confusion", "misfires", "biases"),
    *("kernels", "design", "redundancy"),
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", choices=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("file", metavar="RUN.h5")
    parser.add_argument(
        "--group",
        metavar="FILE.csv:COLUMN",
        help="of biases: one value a sample, in order or by a column 'sample' or 'key'; "
        "or the name of a column of the run",
    )
    add_csv(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import fastconv
    from fastconv import insight

    if (arguments.group is not None) != (arguments.table == "biases"):
        raise InputError("--group FILE.csv:COLUMN goes with the table biases, which needs it")
    with fastconv.open(arguments.file) as run:
        given = [] if arguments.group is None else [_group(arguments.group, run)]
        found = getattr(insight, arguments.table)(run, *given)
    show(found, arguments.csv)
    return 0


def _group(text: str, run: Any) -> Any:
    """A column of the run by its name, or a column of a CSV file."""
    path, _, column = text.rpartition(":")
    if not path:
        return text
    from fastconv.insight.groups import column_of_csv

    return column_of_csv(path, column, run)
