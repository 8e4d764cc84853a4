"""The checks that `conv_reduce` and `channel_reduce` share."""

from __future__ import annotations

import torch
from torch import Tensor

from fastconv.errors import InputError
from fastconv.histogram import BINS
from fastconv.reduction import ACTIVATIONS

REDUCED_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_affine(scale: Tensor | None, shift: Tensor | None, channels: int, x: Tensor) -> None:
    """Scale and shift are float32 or float64 [C] on the device of the input."""
    for name, value in (("scale", scale), ("shift", shift)):
        if value is None:
            continue
        if value.shape != (channels,):
            raise InputError(f"{name} must be [{channels}], got {list(value.shape)}")
        if value.device != x.device:
            raise InputError(f"{name} is on {value.device}, the input on {x.device}")


def check_activation(activation: str | None) -> None:
    if activation is not None and activation not in ACTIVATIONS:
        raise InputError(
            f"activation must be None or one of {', '.join(ACTIVATIONS)}, got {activation!r}"
        )


def check_dtype(x: Tensor, name: str) -> None:
    if x.dtype not in REDUCED_DTYPES:
        raise InputError(f"{name} must be float32, float16, bfloat16 or float64, got {x.dtype}")


def histogram_buffer(
    histogram: bool | Tensor,  # noqa: FBT001 - as the ops take it
    channels: int,
    device: torch.device,
) -> Tensor | None:
    """The [C, bins] int64 counts to add into: none, zeros, or the caller's own."""
    if isinstance(histogram, bool):
        if not histogram:
            return None
        return torch.zeros((channels, BINS), dtype=torch.int64, device=device)
    if (
        histogram.shape != (channels, BINS)
        or histogram.dtype != torch.int64
        or not histogram.is_contiguous()
    ):
        raise InputError(
            f"histogram must be a bool or contiguous int64 [{channels}, {BINS}], "
            f"got {histogram.dtype} {list(histogram.shape)}"
        )
    return histogram
