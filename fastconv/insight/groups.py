"""One value a sample from a table beside the run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.reading import sample_count
from fastconv.store import join

if TYPE_CHECKING:
    import pandas as pd


def column_of_csv(path: str | os.PathLike[str], column: str, run: Any) -> np.ndarray:
    """The values [N] of a column of a CSV file, in the order of the samples of a run.

    Raises:
        InputError: the file cannot be read, or does not fit the run.
    """
    frame = join.read_table(path)
    if column not in frame:
        raise InputError(f"{path} has no column {column!r}; it has {', '.join(map(str, frame))}")
    return by_sample(frame, run)[column].to_numpy()


def by_sample(frame: pd.DataFrame, run: Any, on: str | None = None) -> pd.DataFrame:
    """A table's rows in the order of the samples of a run, which may be missing in it.

    Args:
        frame: one row a sample, or fewer.
        run: the run; it needs no outcomes (with them see `run.outcomes.join`).
        on: the column that says which sample a row is of, by its index (whole numbers) or its name
            (text); default `sample` or `key`, else the rows are all samples in order.

    Raises:
        InputError: no such column, two rows of a sample, or rows of no sample of the run.
    """
    return join.by_sample(frame, sample_count(run), getattr(run.samples, "keys", None), on)
