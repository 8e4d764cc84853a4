from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 32) - 1


def exact_add(sums: Tensor, values: Tensor) -> None:
    bits = values.contiguous().view(torch.int64)
    exponent = (bits >> 52) & 0x7FF
    mantissa = (bits & ((1 << 52) - 1)) | ((exponent > 0).long() << 52)
    sign = 1 - 2 * (bits < 0).long()
    offset = (exponent - 1).clamp_min(0)  # of the lowest mantissa bit above 2^-1074
    limb, shift = offset >> 5, offset & 31
    limb = limb + torch.arange(sums.shape[0], device=sums.device) * sums.shape[1]  # [N, C]
    low, high = mantissa & _MASK, mantissa >> 32  # 32 and 21 bits: no shift below overflows
    for part, at in ((low << shift, limb), (high << shift, limb + 1)):
        sums.view(-1).index_add_(0, at.flatten(), (sign * (part & _MASK)).flatten())
        sums.view(-1).index_add_(0, at.flatten() + 1, (sign * (part >> 32)).flatten())
