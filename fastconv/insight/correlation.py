"""Correlations of filters over samples, in blocks of rows so that float64 copies stay small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fastconv.errors import InputError

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

    The mean of two Pearson correlations: of the per-sample means and of the maxima.
    """
    first, second = summaries(a), summaries(b)
    rows = complete_rows(*first, *second)
    if rows.sum() < 2:
        raise InputError(f"{a.name} has {rows.sum()} samples of finite values; two at least")
    return (pearson(first[0], second[0], rows) + pearson(first[1], second[1], rows)) / 2


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[C_a, C_b]: cosine of weights [C, ...] with each other; 0 for a filter of zeros."""
    flat = [w.reshape(len(w), -1).astype(np.float64) for w in (a, b)]
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
