"""One value a sample from a table beside the run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.extras import library
from fastconv.insight.reading import sample_count

if TYPE_CHECKING:
    import pandas as pd


def column_of_csv(path: str | os.PathLike[str], column: str, run: Any) -> np.ndarray:
    """The values [N] of a column of a CSV file, in the order of the samples of a run.

    Raises:
        InputError: the file cannot be read, or does not fit the run.
    """
    pd = library("pandas", "insight")
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path} is no CSV file that can be read: {error}") from error
    if column not in frame:
        raise InputError(f"{path} has no column {column!r}; it has {', '.join(map(str, frame))}")
    return by_sample(frame, run)[column].to_numpy()


def by_sample(frame: pd.DataFrame, run: Any) -> pd.DataFrame:
    """A table's rows in the order of the samples of a run, which may be missing in it.

    They belong together by a column `sample` (index) or `key` (name); without one, by their order.

    Raises:
        InputError: a sample has two rows, or the rows do not fit the samples.
    """
    count = sample_count(run)
    for name, samples in (("sample", range(count)), ("key", getattr(run.samples, "keys", None))):
        if name in frame and samples is not None:
            if frame[name].duplicated().any():
                twice = frame[name][frame[name].duplicated()].iloc[0]
                raise InputError(f"the table has two rows of {name} {twice}; give one a sample")
            ordered = frame.set_index(name).reindex(list(samples))
            if ordered.isna().all(axis=None):
                raise InputError(f"none of the table's {name}s is a sample of the run")
            return ordered
    if len(frame) != count:
        raise InputError(
            f"the table has {len(frame)} rows, the run {count} samples; add a column 'sample' with "
            "their indices"
        )
    return frame
