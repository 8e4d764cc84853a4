"""`fastconv demo`: a small network trained here, extracted, verified and drawn."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", nargs="?", choices=("digits", "photos"), default="digits")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="FOLDER", help="(demo)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from fastconv.errors import InputError

    try:
        show = importlib.import_module(f"fastconv.demo.{arguments.which}").show
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing: pip install 'fastconv[demo]'") from error
    return 0 if show(arguments.out) else 1
