"""Tensors for the stages."""

from __future__ import annotations

import torch
from roofline import Layer
from torch import Tensor

DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "tf32": torch.float32,
    "ieee": torch.float32,
}


def set_precision(math_type: str) -> None:
    """What torch and the kernels use for float32 convolutions."""
    torch.backends.cudnn.allow_tf32 = math_type == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = math_type == "tf32"


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def draw(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, exact: bool
) -> Tensor:
    """Normal values; exact: few small ones, so that sums do not round and ties are frequent."""
    if exact:
        return torch.randint(-3, 4, shape, device=device).div(2).to(dtype)
    return torch.randn(shape, device=device).to(dtype)


def layer_tensors(
    layer: Layer, math_type: str, device: torch.device, *, exact: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """input (channels last), weight (channels last), bias."""
    dtype = DTYPES[math_type]
    x = draw((layer.batch, layer.c_in, *layer.size), dtype, device, exact=exact)
    shape = (layer.c_out, layer.c_in // layer.groups, *(layer.kernel,) * layer.rank)
    weight = channels_last(draw(shape, dtype, device, exact=exact))
    return channels_last(x), weight, draw((layer.c_out,), dtype, device, exact=exact)


def geometry(layer: Layer) -> dict[str, int]:
    return {"stride": layer.stride, "padding": layer.kernel // 2, "groups": layer.groups}
