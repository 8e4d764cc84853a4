"""Patches cut out of a batch, as a tensor of their own or into slots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.backends.cuda import limits

_BYTES = (1, 2, 4, 8)
_COLOURS = (torch.float32, torch.uint8)


def gather_supports(x: Tensor, index: Tensor, start: Tensor, size: Sequence[int]) -> str | None:
    return _unsupported(x)


def place_supports(
    x: Tensor,
    index: Tensor,
    start: Tensor,
    slot: Tensor | None,
    low: Tensor | None,
    *rest: object,
) -> str | None:
    if low is not None and x.dtype not in _COLOURS:
        return f"colours are made of float32 and uint8, not {x.dtype}"
    return _unsupported(x)


def _unsupported(x: Tensor) -> str | None:
    if x.element_size() not in _BYTES:
        return f"its kernels take values of 1, 2, 4 or 8 bytes, not {x.dtype}"
    return limits.no_device(x)


def gather(x: Tensor, index: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    out = x.new_empty((index.shape[0], x.shape[1], *size))
    place(x, index, start, None, None, None, out)
    return out


def place(
    x: Tensor,
    index: Tensor,
    start: Tensor,
    slot: Tensor | None,
    low: Tensor | None,
    scale: Tensor | None,
    out: Tensor,
) -> None:
    if not out.numel() or not index.numel():
        return
    missing = 5 - x.ndim  # dimensions of size 1 before the others
    spatial = 2 if low is None else 1  # the first spatial dimension of out
    torch.ops.fastconv_cuda.place_patches(
        x.reshape(*x.shape[:2], *(1,) * missing, *x.shape[2:]),
        index.contiguous(),
        F.pad(start, (missing, 0)).contiguous(),
        slot,
        low,
        scale,
        x.element_size(),
        out.view(*out.shape[:spatial], *(1,) * missing, *out.shape[spatial:]),
    )
