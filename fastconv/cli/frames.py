"""A DataFrame on the command line: printed, and written as CSV where asked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fastconv.cli.table import table
from fastconv.errors import OutputError

if TYPE_CHECKING:
    import pandas as pd

ROWS = 40  # printed at most


def add_csv(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--csv", metavar="FILE", help="write the whole table to this file too")


def show(frame: pd.DataFrame, csv: str | None) -> None:
    """Print the first rows, and write all of them where a file is named."""
    shown = frame.head(ROWS)
    rows = [[_text(value) for value in row] for row in shown.itertuples(index=False)]
    texts = [i for i, name in enumerate(frame) if frame[name].dtype.kind not in "iufb"]
    print(table([str(name) for name in frame], rows, left=texts))
    if len(frame) > ROWS:
        print(f"... {len(frame) - ROWS:,} more rows; --csv FILE writes all {len(frame):,}")
    if csv is not None:
        try:
            frame.to_csv(Path(csv), index=False)
        except OSError as error:
            raise OutputError(f"{csv} cannot be written: {error}") from error


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
