from __future__ import annotations

import torch
import triton
from torch import Tensor

from fastconv.backends.triton import tuning
from fastconv.backends.triton.kernels.channel_normalize import affine_kernel, measured_kernel
from fastconv.backends.triton.launch import launch, unsupported
from fastconv.backends.triton.layout import dense_activation


def supports(x: Tensor, *rest: object) -> str | None:
    return unsupported(x)


def run(x: Tensor, mode: str, scale: Tensor | None, shift: Tensor | None, eps: float) -> Tensor:
    dense, stride_c, stride_p = dense_activation(x)
    out = torch.empty_like(dense)
    samples, channels = x.shape[:2]
    positions = x.shape[2:].numel()
    block_c, block_p = tuning.channel_normalize(channels, positions, channels_last=stride_c == 1)
    blocks = (samples, triton.cdiv(channels, block_c), triton.cdiv(positions, block_p))
    shared = {
        "x": dense,
        "out": out,
        "CHANNELS": channels,
        "POSITIONS": positions,
        "stride_c": stride_c,
        "stride_p": stride_p,
        "BLOCK_C": block_c,
        "BLOCK_P": block_p,
    }
    if x.numel() and mode in {"instance", "l1", "l2"}:
        launch(
            measured_kernel, blocks[:2], x.device, warps=4, stages=1, **shared, EPS=eps, MODE=mode
        )
    elif x.numel():
        launch(
            affine_kernel, blocks, x.device, warps=4, stages=1, **shared, scale=scale, shift=shift
        )
    return out if dense is x else torch.empty_like(x).copy_(out)
