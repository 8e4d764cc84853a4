"""Exact sums of float64 values: integer fixed point, so that merging is integer addition.

A sum is held as LIMBS signed 64-bit integers: limb i counts units of 2^(32 i - 1074), which covers
every finite float64. Adding touches three limbs; carries are propagated when a sum is stored. The
result is the mathematical sum of the values added, whatever their order, split or shard.
"""

from __future__ import annotations

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
    sums = sums.copy()
    for i in range(LIMBS - 1):
        carry = sums[:, i] >> 32
        sums[:, i] -= carry << 32
        sums[:, i + 1] += carry
    return sums


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
    sums, sumsqs = _integers(total), _integers(squares)
    for c, n in enumerate(count.tolist()):
        if n:
            mean[c] = sums[c] / (n << _UNIT)
            spread = n * (sumsqs[c] << _UNIT) - sums[c] ** 2
            var[c] = max(spread, 0) / (n * n << 2 * _UNIT)
    return mean, var


def _integers(sums: np.ndarray) -> list[int]:
    sums = canonical(sums)
    low = sums[:, :-1].astype("<u4")
    return [
        int.from_bytes(low[c].tobytes(), "little") + (int(sums[c, -1]) << 32 * (LIMBS - 1))
        for c in range(len(sums))
    ]
