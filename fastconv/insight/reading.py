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


class Labels(NamedTuple):
    """The class of every sample."""

    codes: np.ndarray  # [N] int64, index into names; -1 of none
    names: np.ndarray  # [K] class names or integers


def labels_of(run: Any, labels: Any = None) -> Labels:
    """The classes given, or those of the run.

    Raises:
        InputError: there are none, of another number of samples, or of fewer than two values.
    """
    count = sample_count(run)
    names = run.classes
    if labels is None:
        labels = None if run.samples is None else run.samples.labels
        if labels is None:
            raise InputError(
                "the run has no labels; give labels=, one a sample, or extract a data set that "
                "gives (x, y)"
            )
        found = encode(np.where(np.asarray(labels) < 0, -1, labels), count, "labels")
        codes, values = found.codes, found.names
        if len(values) and values[0] == -1:
            codes, values = codes - 1, values[1:]
        found = Labels(codes, values)
    else:
        found = encode(labels, count, "labels")
    if len(np.unique(found.codes[kept_samples(run, count) & (found.codes >= 0)])) < 2:
        raise InputError("labels of one class only: nothing can be told apart; give two or more")
    return Labels(found.codes, named(found.names, names))


def named(values: np.ndarray, names: Any) -> np.ndarray:
    """Class names in place of integers, where the run has them.

    Raises:
        InputError: an integer without a name.
    """
    if names is None or np.asarray(values).dtype.kind not in "iu":
        return values
    if len(values) and not 0 <= values.min() <= values.max() < len(names):
        raise InputError(
            f"labels must be 0 ... {len(names) - 1}, the classes of the run, got {values.max()}"
        )
    return np.asarray(names, object)[values]


def encode(values: Any, count: int, what: str) -> Labels:
    """Values of any kind as codes; missing ones (None, NaN) are -1.

    Raises:
        InputError: not one value a sample.
    """
    pd = library("pandas", "insight")
    array = values if isinstance(values, pd.Series) else np.asarray(values)
    if array.shape != (count,):
        raise InputError(f"{what} must be one a sample, {count}, got shape {list(array.shape)}")
    codes, unique = pd.factorize(array, sort=True)
    return Labels(codes.astype(np.int64), np.asarray(unique))


def require_outcomes(run: Any) -> dict[str, np.ndarray]:
    """label, prediction, confidence and correct of every sample, [N] each.

    Raises:
        InputError: the run kept none, or knows no label.
    """
    found = run.outcomes
    if found is None or len(found) == 0:
        raise InputError("the run has no outcomes; extract it with outcomes=True, samples=True")
    found = {name: np.asarray(found[name]) for name in OUTCOMES}
    if (found["label"] < 0).all():
        raise InputError("the outcomes have no labels; extract a data set that gives (x, y)")
    return found


OUTCOMES = ("label", "prediction", "confidence", "correct")


def require_wrong(wrong: np.ndarray, right: np.ndarray) -> None:
    """Refuse outcomes of which nothing can be told apart."""
    if wrong.sum() < 2:
        raise InputError(f"fewer than two wrong outcomes ({wrong.sum()}): use more or harder data")
    if not right.any():
        raise InputError("no outcome is correct: check the labels, or the output= of the model")


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
