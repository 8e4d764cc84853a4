"""The classes of the samples: one label a sample, or 0 and 1 for each of several."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.extras import library
from fastconv.insight.reading import kept_samples, sample_count


class Comparison(NamedTuple):
    """Classes and others of the same samples."""

    samples: np.ndarray  # [n] int64
    members: np.ndarray  # [G, n] bool: the samples of each class
    names: np.ndarray  # [G]


def comparisons(run: Any, labels: Any = None) -> list[Comparison]:
    """Each class and the samples that it can be compared in.

    All at once where every sample has one label, or the label of each class is known; else one
    class at a time, with the samples whose label of it is known.

    Raises:
        InputError: no labels, of another number of samples, or of one class only.
    """
    given = _given(run, labels)
    kept = kept_samples(run, len(given))
    if given.ndim == 1:
        found = _codes(run, given, from_data=labels is None)
        used = np.flatnonzero(kept & (found.codes >= 0))
        codes = found.codes[used]
        present = np.unique(codes)
        if len(present) < 2:
            raise InputError(_ONE_CLASS)
        return [
            Comparison(used, codes == present[:, None], named(found.names, run.classes)[present])
        ]
    known = (given >= 0) & kept[:, None]
    names = names_of_vectors(run, given.shape[1], labels)
    varied = [k for k in range(given.shape[1]) if len(np.unique(given[known[:, k], k])) > 1]
    if not varied:
        raise InputError(_ONE_CLASS)
    whole = (known == known[:, :1]).all()
    return [
        Comparison(rows, given[rows][:, classes].T == 1, names[classes])
        for classes in ([varied] if whole else [[k] for k in varied])
        for rows in [np.flatnonzero(known[:, classes[0]])]
    ]


_ONE_CLASS = "labels of one class only: nothing can be told apart; give two or more"


def strata(run: Any, labels: Any = None) -> np.ndarray:
    """[N] int64: the same number for samples of the same class; -1 without one, and if skipped.

    Of several labels a sample those that agree in all of them, missing ones included.

    Raises:
        InputError: as of `comparisons`.
    """
    given = _given(run, labels)
    if given.ndim == 1:
        codes = _codes(run, given, from_data=labels is None).codes
    else:
        codes = np.unique(given, axis=0, return_inverse=True)[1].reshape(-1)
        codes[(given < 0).all(1)] = -1
    codes = np.where(kept_samples(run, len(codes)), codes, -1)
    if len(np.unique(codes[codes >= 0])) < 2:
        raise InputError(_ONE_CLASS)
    return codes


def _given(run: Any, labels: Any) -> np.ndarray:
    """[N] of any kind, or [N, K] of 0, 1 and -1: those given, or those of the run."""
    count = sample_count(run)
    if labels is None:
        labels = None if run.samples is None else run.samples.labels
        if labels is None:
            raise InputError(
                "the run has no labels; give labels=, one a sample, or extract a data set that "
                "gives (x, y); vectors of 0 and 1 are kept with outcomes=True"
            )
    found = np.asarray(labels)
    if len(found.shape) not in (1, 2) or len(found) != count:
        raise InputError(f"labels must be one a sample, {count}, got shape {list(found.shape)}")
    return found if found.ndim == 1 else vectors(found)


def vectors(labels: np.ndarray) -> np.ndarray:
    """Labels [N, K] as int64, those missing (-1 or NaN) as -1.

    Raises:
        InputError: others than 0, 1 and missing ones.
    """
    try:
        found = np.asarray(labels, np.float64)
    except (TypeError, ValueError):
        raise InputError("labels of several classes must be 0 or 1, one a class") from None
    found = np.where(np.isnan(found), -1, found)
    wrong = found[~np.isin(found, (-1, 0, 1))]
    if len(wrong):
        raise InputError(
            f"labels [N, K] must be 0 or 1 for each class (-1 or NaN: missing), got {wrong[0]:g}"
        )
    return found.astype(np.int64)


class Codes(NamedTuple):
    """Values of any kind as numbers."""

    codes: np.ndarray  # [N] int64, index into names; -1 of none
    names: np.ndarray  # [K] the values, in order


def _codes(run: Any, labels: np.ndarray, *, from_data: bool) -> Codes:
    """One label a sample; below 0 is none in those of the data set."""
    if not from_data:
        return encode(labels, len(labels), "labels")
    codes, values = encode(np.where(labels < 0, -1, labels), len(labels), "labels")
    return Codes(codes - 1, values[1:]) if len(values) and values[0] == -1 else Codes(codes, values)


def names_of_vectors(run: Any, count: int, labels: Any = None) -> np.ndarray:
    """[K] names of the classes of labels [N, K]: of a table its columns, else those of the run.

    Their numbers, where the run names another number of classes.
    """
    columns = getattr(labels, "columns", None)
    names = run.classes if columns is None else list(columns)
    fits = names is not None and len(names) == count
    return np.asarray(names, object) if fits else np.arange(count)


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


def encode(values: Any, count: int, what: str) -> Codes:
    """Values of any kind as codes; missing ones (None, NaN, an empty text) are -1.

    Raises:
        InputError: not one value a sample.
    """
    pd = library("pandas", "insight")
    array = values if isinstance(values, pd.Series) else np.asarray(values)
    if array.shape != (count,):
        raise InputError(f"{what} must be one a sample, {count}, got shape {list(array.shape)}")
    if array.dtype.kind in "OU":  # a run keeps a text that is missing as an empty one
        array = pd.Series(array, dtype=object).replace("", None)
    codes, unique = pd.factorize(array, sort=True)
    return Codes(codes.astype(np.int64), np.asarray(unique))
