from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def supports(input: Tensor, *rest: object) -> str | None:
    if input.element_size() not in (1, 2, 4, 8):
        return f"its kernels take values of 1, 2, 4 or 8 bytes, not {input.dtype}"
    return None


def gather_patches(input: Tensor, index: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    out = torch.empty(
        (index.shape[0], input.shape[1], *size), dtype=input.dtype, device=input.device
    )
    missing = 3 - len(size)  # dimensions of size 1 before the others
    ones = (1,) * missing
    torch.ops.fastconv_cpu.gather_patches(
        input.reshape(*input.shape[:2], *ones, *input.shape[2:]),
        index.contiguous(),
        F.pad(start, (missing, 0)).contiguous(),
        input.element_size(),
        out.view(*out.shape[:2], *ones, *size),
    )
    return out
