"""Exact sums of float64 values: integer fixed point, so that merging is integer addition.

A sum is held as LIMBS signed 64-bit integers: limb i counts units of 2^(32 i - 1074), which covers
every finite float64. Adding touches three limbs; carries are propagated when a sum is stored. The
result is the mathematical sum of the values added, whatever their order, split or shard.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

LIMBS = 68  # 2098 bits of float64 range, 2^31 summands, and a sign
_UNIT = 1074  # the lowest bit is 2^-1074


def empty_sums(channels: int) -> Tensor:
    """[C, LIMBS] int64 zeros."""
    return torch.zeros((channels, LIMBS), dtype=torch.int64)


def canonical(sums: np.ndarray) -> np.ndarray:
    """Propagate carries: limbs in [0, 2^32), the last one signed. Equal sums get equal limbs."""
    if not (sums[:, :-1] >> 32).any():
        return sums.copy()
    limbs = sums.T.copy()  # [LIMBS, C]
    for low, high in itertools.pairwise(limbs):
        high += low >> 32
        low &= 0xFFFFFFFF
    return limbs.T.copy()


def mean_and_var(
    total: np.ndarray, squares: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population variance of each channel, each rounded once from the exact sums.

    Args:
        total, squares: [C, LIMBS] int64, sums of values and of squared values.
        count: [C] int64, values summed.

    Returns:
        ([C], [C]) float64; NaN where the count is 0.
    """
    mean = np.full(len(count), np.nan)
    var = np.full(len(count), np.nan)
    used = np.logical_or(total, squares).any(axis=0)[: _UNIT // 32]
    skip = int(used.argmax()) if used.any() else len(used)  # the lowest limbs, all zero
    unit = _UNIT - 32 * skip
    sums, sumsqs = _integers(total, skip), _integers(squares, skip)
    for c, n in enumerate(count.tolist()):
        if n:
            mean[c] = sums[c] / (n << unit)
            spread = n * (sumsqs[c] << unit) - sums[c] ** 2
            var[c] = max(spread, 0) / (n * n << 2 * unit)
    return mean, var


def _integers(sums: np.ndarray, skip: int = 0) -> list[int]:
    """The sums in units of the first limb but `skip`, below which they are zero."""
    sums = canonical(sums)[:, skip:]
    low = sums[:, :-1].astype("<u4")
    shift = 32 * low.shape[1]
    return [
        int.from_bytes(bytes, "little") + (top << shift)
        for bytes, top in zip(map(np.ndarray.tobytes, low), sums[:, -1].tolist(), strict=True)
    ]
