from __future__ import annotations

import torch
import triton
from torch import Tensor

from fastconv.backends.triton.kernels.place_patches import place_patches_kernel
from fastconv.backends.triton.launch import launch, no_device
from fastconv.backends.triton.layout import five_strides, three

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # any dtype of that size
_BLOCK = 1024
_MOST = 65535 * _BLOCK  # elements of a patch: a grid has no more blocks along its second axis


def unsupported(x: Tensor, elements: int) -> str | None:
    """Why patches of so many elements cannot be cut out of x, or None."""
    if x.dtype.itemsize not in _BITS:
        return f"elements of {x.dtype} have {x.dtype.itemsize} bytes"
    if elements > _MOST:
        return f"one patch has {elements} elements, more than {_MOST}"
    return no_device(x)


def supports(
    x: Tensor,
    index: Tensor,
    start: Tensor,
    slot: Tensor,
    low: Tensor | None,
    scale: Tensor | None,
    out: Tensor,
) -> str | None:
    return unsupported(x, out.shape[1:].numel())


def run(
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
    raw = low is None
    bits = _BITS[x.dtype.itemsize]
    launch(
        place_patches_kernel,
        (index.shape[0], triton.cdiv(out[0].numel(), _BLOCK)),
        x.device,
        warps=4,
        stages=1,
        x=x.view(bits) if raw else x,
        index=index.contiguous(),
        start=start.contiguous(),
        slot=slot,
        low=low,
        scale=scale,
        out=out.view(bits) if raw else out,
        SAMPLES=x.shape[0],
        CHANNELS=x.shape[1],
        size=three(out.shape[2:] if raw else out.shape[1:-1], 1),
        extent=three(x.shape[2:], 1),
        stride=five_strides(x),
        RANK=x.ndim - 2,
        BLOCK=_BLOCK,
    )
