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
    blocks_c, blocks_p = triton.cdiv(channels, block_c), triton.cdiv(positions, block_p)
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
        options = {**shared, "EPS": eps, "MODE": mode}
        launch(measured_kernel, (samples, blocks_c), x.device, warps=4, stages=1, **options)
    elif x.numel():
        options = {**shared, "scale": scale, "shift": shift, "BLOCKS": blocks_p}
        grid = (samples * blocks_p, blocks_c)
        launch(affine_kernel, grid, x.device, warps=4, stages=1, **options)
    return out if dense is x else torch.empty_like(x).copy_(out)
