"""One output of a convolution in float64, from its own input, and the bound of its rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.capture import CaptureTarget
from fastconv.capture.fusion import CONVOLUTIONS
from fastconv.format.result import LayerInfo
from fastconv.geometry import ConvGeometry
from fastconv.ops.gather_patches import gather_patches

_UNIT_ROUNDOFF = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}
_SMALLEST_NORMAL = {"bfloat16": 2.0**-126, "float16": 2.0**-14, "float32": 2.0**-126}


def is_plain(target: CaptureTarget) -> bool:
    """True where the hooked value is that of a zero-padded convolution as torch has it."""
    module: Any = target.conv
    return (
        module is not None
        and not target.info.transposed
        and target.instances == 1
        and module is target.module  # else that of a norm or an activation after it
        and module.padding_mode == "zeros"
        and not module._forward_hooks
        and not torch.nn.modules.module._global_forward_hooks
        and not torch.nn.modules.module._global_forward_pre_hooks
        and "forward" not in vars(module)
        and any(
            type(module).forward is kind.forward
            and type(module)._conv_forward is kind._conv_forward  # type: ignore[attr-defined]
            for kind in CONVOLUTIONS
        )
    )


def value_and_bound(
    target: CaptureTarget,
    module: Any,
    x: Tensor,
    filters: np.ndarray,
    rows: np.ndarray,
    at: Tensor,
    autocast: str | None,
) -> tuple[Tensor, Tensor]:
    """Compute the stage's value at one position of each hit, and the bound of its rounding.

    Args:
        module: the convolution.
        x: its input [n, C_in, *spatial].
        filters, rows, at: [M] each: filter, row of the input and flat output position of a hit.
        autocast: name of the dtype that the forward ran in, or None: that of the input.

    Returns:
        Two float64 [M].

    Numerics:
        With u the unit roundoff and n products, |error| <= (n + 2) 2^-24 S + u (S + |value|), S the
        sum of the absolute products. Values below the smallest normal number m may be flushed to
        zero, as inputs, weights, products and sums: m (n + sum |x| + sum |w|) besides.
    """
    x = x.detach().cpu()
    window, weight = _windows(target.info, module, x, filters, rows, at)
    products = (window * weight).flatten(1)
    conv, size = products.sum(1), products.abs().sum(1)
    if module.bias is not None:
        bias = module.bias.detach().cpu().double()[filters]
        conv, size = conv + bias, size + bias.abs()
    scale, shift = torch.ones_like(conv), torch.zeros_like(conv)
    if target.scale is not None and target.shift is not None:
        scale, shift = (t.cpu().double()[filters] for t in (target.scale, target.shift))
    value = conv * scale + shift
    dtype = autocast or str(x.dtype).removeprefix("torch.")
    unit = _UNIT_ROUNDOFF.get(dtype, 2.0**-23)
    smallest = _SMALLEST_NORMAL.get(dtype, 2.0**-126)
    count = products.shape[1]
    factors = (window.abs() + weight.abs()).flatten(1).sum(1)
    flushed = smallest * (count + 2 + factors)
    bound = (count + 2) * 2.0**-24 * size + unit * (size + conv.abs()) + flushed
    bound = bound * scale.abs() + 2.0**-22 * (value.abs() + shift.abs()) + 2.0**-126
    if target.activation is not None:
        value = getattr(F, target.activation)(value)
        bound = bound * 1.2 + 2.0**-20 * value.abs() + 2.0**-20  # slopes stay below 1.2
    return value, bound


def _windows(
    info: LayerInfo, module: Any, x: Tensor, filters: np.ndarray, rows: np.ndarray, at: Tensor
) -> tuple[Tensor, Tensor]:
    """Inputs and weights multiplied at each hit: two float64 [M, C_in/groups, *kernel]."""
    assert info.kernel and info.stride and info.padding and info.dilation and info.groups
    position = np.stack(np.unravel_index(at.numpy(), info.size), -1)  # [M, D]
    before = np.array([pad[0] for pad in info.padding])
    start = torch.from_numpy(position * np.array(info.stride) - before)
    extent = ConvGeometry.create(info.kernel, dilation=info.dilation).extent
    window = gather_patches(x, torch.from_numpy(rows), start, extent)
    window = window[(slice(None), slice(None), *(slice(None, None, d) for d in info.dilation))]
    weight = module.weight.detach().cpu()[filters].double()  # [M, C_in/groups, *kernel]
    group = torch.from_numpy(filters) // (info.channels // info.groups)
    first = group * weight.shape[1]
    channel = first[:, None] + torch.arange(weight.shape[1])
    return window[torch.arange(len(filters))[:, None], channel].double(), weight
