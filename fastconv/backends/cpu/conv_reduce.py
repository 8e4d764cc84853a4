from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastconv.geometry import ConvGeometry
from fastconv.reduction import ACTIVATIONS, Onward, empty_fields

DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # in the order of csrc/params.h
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def supports(input: Tensor, *rest: object) -> str | None:
    if input.dtype not in DTYPES:
        return f"the C++ kernels take float32, float16 and bfloat16, got {input.dtype}"
    return None


def conv_reduce(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],  # (before, after) of every dimension
    dilation: Sequence[int],
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    histogram: Tensor | None,
    return_activation: bool,
    onward: Onward | None = None,
) -> tuple[Tensor, ...]:
    kernel = tuple(weight.shape[2:])
    pairs = tuple(zip(padding[::2], padding[1::2], strict=True))
    geometry = ConvGeometry(kernel, tuple(stride), pairs, tuple(dilation), groups)
    size = geometry.output_size(input.shape[2:])
    fields = empty_fields(input.shape[0], weight.shape[0], input.device)
    written = _activation(input, (input.shape[0], weight.shape[0], *size), return_activation)
    weight, weight_last = _dense(weight)
    torch.ops.fastconv_cpu.conv_reduce(
        _five(input),
        weight,
        weight_last,
        DTYPES.index(input.dtype),
        _three(kernel, 1),
        _three(stride, 1),
        _three(padding[::2], 0),
        _three(dilation, 1),
        _three(size, 1),
        groups,
        *_affine(weight.shape[0], bias, scale, shift),
        _number(activation),
        list(fields),
        histogram,
        _five(written) if return_activation else None,
        *((None, None, 0) if onward is None else _onward(weight.shape[0], onward)),
    )
    return (*fields, written)


def _number(activation: str | None) -> int:
    return 0 if activation is None else 1 + ACTIVATIONS.index(activation)


def _onward(channels: int, onward: Onward) -> tuple[Tensor, Tensor, int]:
    affine = _affine(channels, None, onward.scale, onward.shift)
    return *affine, _number(onward.activation)


def _three(values: Sequence[int], missing: int) -> list[int]:
    """Depth, height, width; the one dimension of a 1-D convolution is the height."""
    return {
        1: [missing, *values, missing],
        2: [missing, *values],
        3: [*values],
    }[len(values)]


def _dense(weight: Tensor) -> tuple[Tensor, bool]:
    """The weight contiguous, or as it is and True where its channels are innermost."""
    last = weight.ndim in _FORMATS and not weight.is_contiguous()
    last = last and weight.is_contiguous(memory_format=_FORMATS[weight.ndim])
    return (weight if last else weight.contiguous()), last


def _five(x: Tensor) -> Tensor:
    """[N, C, D, H, W], a view."""
    return {3: lambda: x[:, :, None, :, None], 4: lambda: x[:, :, None], 5: lambda: x}[x.ndim]()


def _activation(input: Tensor, shape: tuple[int, ...], wanted: bool) -> Tensor:
    """Room for the activation, channels last where the input is."""
    last = input.ndim in _FORMATS and not input.is_contiguous()
    last = last and input.is_contiguous(memory_format=_FORMATS[input.ndim])
    if not wanted:
        return input.new_empty(0)
    memory_format = _FORMATS[input.ndim] if last else torch.contiguous_format
    return torch.empty(shape, dtype=input.dtype, memory_format=memory_format)


def _affine(
    channels: int, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Bias, scale and shift as one scale and one shift, folded in float64, rounded once."""
    factor = torch.ones(channels, dtype=torch.float64) if scale is None else scale.double()
    offset = torch.zeros(channels, dtype=torch.float64) if bias is None else bias.double() * factor
    if shift is not None:
        offset = offset + shift.double()
    return factor.float(), offset.float()
