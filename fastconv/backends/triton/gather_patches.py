from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from fastconv.backends.triton.kernels.gather_patches import gather_patches_kernel
from fastconv.backends.triton.launch import launch, no_device
from fastconv.backends.triton.layout import five_strides, three

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # any dtype of that size
_BLOCK = 1024


def supports(x: Tensor, index: Tensor, start: Tensor, size: Sequence[int]) -> str | None:
    if x.dtype.itemsize not in _BITS:
        return f"elements of {x.dtype} have {x.dtype.itemsize} bytes"
    if x.shape[1] * torch.Size(size).numel() > 2**31 - 1:
        return "one patch has more than 2^31 - 1 elements"
    return no_device(x)


def run(x: Tensor, index: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    patches, channels = index.shape[0], x.shape[1]
    out = x.new_empty((patches, channels, *size))
    if out.numel():
        bits = _BITS[x.dtype.itemsize]
        launch(
            gather_patches_kernel,
            (patches, triton.cdiv(out[0].numel(), _BLOCK)),
            x.device,
            warps=4,
            stages=1,
            x=x.view(bits),
            index=index.contiguous(),
            start=start.contiguous(),
            out=out.view(bits),
            CHANNELS=channels,
            size=three(size, 1),
            extent=three(x.shape[2:], 1),
            stride=five_strides(x),
            RANK=len(size),
            BLOCK=_BLOCK,
        )
    return out
