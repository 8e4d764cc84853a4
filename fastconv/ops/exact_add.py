"""Add float64 values into exact fixed-point sums (private: not one of the public ops)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastconv import dispatch

_MASK = (1 << 32) - 1


def exact_add(sums: Tensor, values: Tensor) -> None:
    """Add finite values [N, C] float64 into sums [C, limbs]; limb i counts 2^(32 i - 1074)."""
    if isinstance(dispatch.load("cpu"), str):
        _exact_add_numpy(sums.numpy(), values.numpy())
    else:
        torch.ops.fastconv_cpu.exact_add(sums, values.contiguous())


def _exact_add_numpy(sums: np.ndarray, values: np.ndarray) -> None:
    bits = values.view(np.int64)
    exponent = (bits >> 52) & 0x7FF
    mantissa = (bits & ((1 << 52) - 1)) | np.where(exponent > 0, 1 << 52, 0)
    sign = np.where(bits < 0, -1, 1)
    offset = np.maximum(exponent - 1, 0)  # of the lowest mantissa bit above 2^-1074
    limb, shift = offset >> 5, offset & 31
    low, high = mantissa & _MASK, mantissa >> 32  # 32 and 21 bits: no shift below overflows
    channel = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    for part, at in ((low << shift, limb), (high << shift, limb + 1)):
        np.add.at(sums, (channel, at), sign * (part & _MASK))
        np.add.at(sums, (channel, at + 1), sign * (part >> 32))
