"""Correlations of filters over samples, in blocks of rows so that float64 copies stay small."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.reading import complete

if TYPE_CHECKING:
    from fastconv.store.read_layer import Layer

_ROWS = 2**14


def summaries(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Per-sample mean and maximum of every filter, each [N, C] float32.

    Raises:
        InputError: the run kept neither, or only one of them.
    """
    found = layer.samples
    if found.mean is None or found.max is None:
        raise InputError(
            f"the run kept no mean and max of the samples of {layer.name}; "
            "extract it with samples=True"
        )
    return found.mean, found.max


def complete_rows(*arrays: np.ndarray) -> np.ndarray:
    """[N] bool: the samples that are finite in every array; skipped ones are not."""
    kept = np.ones(len(arrays[0]), bool)
    for array in arrays:
        kept &= np.isfinite(array).all(1)
    return kept


def ever_finite(values: np.ndarray) -> np.ndarray:
    """[C] bool: the filters of [N, C] that are finite for some sample."""
    return np.asarray(np.isfinite(values).any(0))


def finite_weights(weight: np.ndarray) -> np.ndarray:
    """[C] bool: the filters of [C, ...] whose weights are all finite."""
    return np.asarray(np.isfinite(weight).reshape(len(weight), -1).all(1))


def centred_products(
    x: np.ndarray, y: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X'Y [C, D], and the sums of squares of X [C] and Y [D], float64, of centred columns.

    Args:
        x, y: [N, C] and [N, D].
        rows: [N] bool, the samples that count.
    """
    number = np.flatnonzero(rows)
    means = [
        sum(block.sum(0) for block in _blocks(a, number)) / max(1, len(number)) for a in (x, y)
    ]
    products = np.zeros((x.shape[1], y.shape[1]))
    squares = [np.zeros(x.shape[1]), np.zeros(y.shape[1])]
    for a, b in zip(_blocks(x, number), _blocks(y, number), strict=True):
        a, b = a - means[0], b - means[1]
        products += a.T @ b
        squares[0] += (a**2).sum(0)
        squares[1] += (b**2).sum(0)
    return products, squares[0], squares[1]


def _blocks(array: np.ndarray, number: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(number), _ROWS):
        yield array[number[start : start + _ROWS]].astype(np.float64)


def pearson(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[C, D]: Pearson correlation of the columns of x and y; 0 where one is constant."""
    products, first, second = centred_products(x, y, rows)
    # a constant column leaves rounding errors of its mean
    scale = [np.square(a[rows], dtype=np.float64).sum(0) if rows.any() else 0 for a in (x, y)]
    first = np.where(first > 1e-12 * scale[0], first, 0)
    second = np.where(second > 1e-12 * scale[1], second, 0)
    size = np.sqrt(np.outer(first, second))
    return np.clip(np.where(size > 0, products / np.where(size > 0, size, 1), 0), -1, 1)


def response_correlation(a: Layer, b: Layer) -> np.ndarray:
    """[C_a, C_b]: how alike the filters of two layers respond, over the samples of one data set.

    The mean of two Pearson correlations: of the per-sample means and of the maxima, over the
    samples for which both filters are finite; 0 where these are fewer than two.
    """
    first, second = summaries(a), summaries(b)
    found = np.zeros((first[0].shape[1], second[0].shape[1]))
    groups = [
        list(complete(np.isfinite(mean) & np.isfinite(high))) for mean, high in (first, second)
    ]
    for (one, mine), (other, theirs) in itertools.product(*groups):
        rows = np.zeros(len(first[0]), bool)
        rows[np.intersect1d(one, other)] = True
        if rows.sum() > 1:
            both = zip(first, second, strict=True)
            pairs = [pearson(_columns(x, mine), _columns(y, theirs), rows) for x, y in both]
            found[np.ix_(mine, theirs)] = sum(pairs) / 2
    return found


def _columns(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    return values if len(which) == values.shape[1] else values[:, which]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[C_a, C_b]: cosine of weights [C, ...]; 0 for filters of zeros or that are not finite."""
    used = [np.where(finite_weights(w), w.reshape(len(w), -1).T, 0).T for w in (a, b)]
    flat = [w.astype(np.float64) for w in used]
    norms = [np.linalg.norm(w, axis=1) for w in flat]
    unit = [w / np.where(n > 0, n, 1)[:, None] for w, n in zip(flat, norms, strict=True)]
    return np.clip(unit[0] @ unit[1].T, -1, 1)


def linear_cka(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> float:
    """Linear centred kernel alignment of x [N, C] and y [N, D] over the given samples.

    ||X'Y||^2 / (||X'X|| ||Y'Y||) with centred columns and Frobenius norms, in [0, 1].

    Source: Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019.
    """
    between = np.square(centred_products(x, y, rows)[0]).sum()
    within = [np.linalg.norm(centred_products(a, a, rows)[0]) for a in (x, y)]
    return float(between / (within[0] * within[1])) if min(within) > 0 else 0.0
