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
    place_patches(input, index, start, None, None, None, out)
    return out


def place_patches(
    input: Tensor,
    index: Tensor,
    start: Tensor,
    slot: Tensor | None,
    low: Tensor | None,
    scale: Tensor | None,
    out: Tensor,
) -> None:
    rank = input.ndim - 2
    missing = 3 - rank  # dimensions of size 1 before the others
    spatial = 2 if low is None else 1  # the first spatial dimension of out
    torch.ops.fastconv_cpu.place_patches(
        input.reshape(*input.shape[:2], *(1,) * missing, *input.shape[2:]),
        index.contiguous(),
        F.pad(start, (missing, 0)).contiguous(),
        slot,
        low,
        scale,
        input.element_size(),
        out.view(*out.shape[:spatial], *(1,) * missing, *out.shape[spatial:]),
    )
