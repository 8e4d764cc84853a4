"""Quantiles out of the log-linear histogram."""

from __future__ import annotations

import numpy as np

from fastconv.errors import InputError


def representatives(edges: np.ndarray) -> np.ndarray:
    """The value that stands for each bin, [bins] float64, finite and ascending.

    The harmonic mean of the two edges, which is off by at most (hi - lo) / (hi + lo) of any value
    in the bin: 1/65 where an octave is cut into 32. The bin around zero stands for 0, the two open
    bins for their finite edge.
    """
    lower, upper = edges[:-1], edges[1:]
    with np.errstate(divide="ignore"):
        middle = 2 / (1 / lower + 1 / upper)
    middle[(lower < 0) & (upper > 0)] = 0
    middle[0], middle[-1] = upper[0], lower[-1]
    return middle


def quantiles(
    counts: np.ndarray,
    edges: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    q: np.ndarray,
) -> np.ndarray:
    """[C, len(q)] float64: the order statistics of rank ceil(q * n), as bins know them.

    Args:
        counts: [C, bins] int64.
        edges: [bins + 1].
        low, high: [C], the least and the greatest value; answers are clipped to them.
        q: [Q] in [0, 1].
    """
    q = np.atleast_1d(np.asarray(q, np.float64))
    if q.ndim != 1 or not len(q) or not ((q >= 0) & (q <= 1)).all():
        raise InputError(f"give one or more quantiles between 0 and 1, got {q.tolist()}")
    below = counts.cumsum(axis=1)  # [C, bins]
    total = below[:, -1:]
    rank = np.clip(np.ceil(q * total), 1, np.maximum(total, 1))  # [C, Q]
    bins = np.stack([(below < rank[:, [i]]).sum(axis=1) for i in range(len(q))], axis=1)
    value = representatives(edges)
    value[-1] = np.inf  # clipped to the greatest value
    value[0] = -np.inf
    found = np.clip(value[np.minimum(bins, len(value) - 1)], low[:, None], high[:, None])
    found = np.where(rank <= 1, low[:, None], found)  # the ends are known exactly
    found = np.where(rank >= total, high[:, None], found)
    return np.where(total > 0, found, np.nan)
