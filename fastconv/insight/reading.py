"""What the tables read of a run, with errors that say how to keep what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.extras import library

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = 256  # filters that are worked on at once
SUMMARIES = ("max", "mean")


class Block(NamedTuple):
    """Filters of a layer that are finite for the same samples."""

    filters: np.ndarray  # [c] int64
    samples: np.ndarray  # [n] int64, indices into what was asked for
    values: np.ndarray  # [n, c] float32


def kept_samples(run: Any, count: int) -> np.ndarray:
    """[N] bool: the samples that were not skipped."""
    kept = np.ones(count, bool)
    skipped = () if run.samples is None else run.samples.skipped
    kept[np.asarray(skipped, np.int64)] = False
    return kept


def sample_count(run: Any) -> int:
    """Samples of the data set."""
    if run.samples is not None and getattr(run.samples, "count", None) is not None:
        return int(run.samples.count)
    return len(run[run.layers[0]].samples.max)


def summary(layer: Any, of: str) -> np.ndarray:
    """[N, C] float32: the maximum or the mean over positions of every sample.

    Raises:
        InputError: the run kept none.
    """
    if of not in SUMMARIES:
        raise InputError(f"of must be max or mean, got {of!r}")
    values = getattr(layer.samples, of)
    if values is None:
        raise InputError(f"the run kept no {of} of the samples of {layer.name}; use samples=True")
    return values


def blocks(values: np.ndarray) -> Iterator[Block]:
    """Filters a few at a time, those of the same missing samples together.

    Filters without a finite value, or with the same one for all samples, are left out.
    """
    for start in range(0, values.shape[1], COLUMNS):
        part = values[:, start : start + COLUMNS]
        for rows, columns in complete(np.isfinite(part)):
            found = part[rows][:, columns]
            varied = (found != found[:1]).any(0)
            if varied.any():
                yield Block(start + columns[varied], rows, found[:, varied])


def complete(finite: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(samples, filters) of [N, C] bool: the filters that are finite for the same samples."""
    if finite.all():
        yield np.arange(len(finite)), np.arange(finite.shape[1])
        return
    patterns, which = np.unique(finite.T, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        yield np.flatnonzero(pattern), np.flatnonzero(which.reshape(-1) == number)


class Table:
    """A table that grows by blocks of rows: arrays as long as `filter`, or one value for all."""

    def __init__(self, *columns: str):
        self._columns = columns
        self._parts: list[dict[str, np.ndarray]] = []

    def add(self, layer: str, **given: Any) -> None:
        length = len(given["filter"])
        whole = {n: np.broadcast_to(np.asarray(v), (length,)) for n, v in given.items()}
        whole["layer"] = np.broadcast_to(np.asarray(layer, object), (length,))
        self._parts.append(whole)

    def frame(self, *names: str) -> pd.DataFrame:
        """All rows, without an index of their own; of these columns, by default all."""
        pd = library("pandas", "insight")
        columns = self._columns + names
        if not self._parts:
            return pd.DataFrame({name: [] for name in columns})
        joined = {n: np.concatenate([p[n] for p in self._parts]) for n in columns}
        return pd.DataFrame(joined)


def in_order(frame: pd.DataFrame, layers: list[str]) -> pd.DataFrame:
    """Rows by layer as in the network, then by filter, then as they came."""
    place = frame["layer"].map({name: i for i, name in enumerate(layers)})
    order = np.lexsort((np.arange(len(frame)), frame["filter"], place))
    return frame.iloc[order].reset_index(drop=True)
