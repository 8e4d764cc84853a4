"""Fused convolution -> per-(sample, channel) reductions; no activation tensor is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fastconv import dispatch
from fastconv.backends import Kernel
from fastconv.errors import InputError
from fastconv.geometry import ConvGeometry
from fastconv.ops.checks import (
    check_activation,
    check_affine,
    check_dtype,
    histogram_buffer,
)
from fastconv.reduction import CandidateLists, PostOps, Reduction, empty_fields

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d

torch.library.define(
    "fastconv::conv_reduce",
    # padding is (before, after) of every spatial dimension, flattened
    "(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation,"
    " int groups, Tensor? scale, Tensor? shift, str? activation, Tensor(a!)? histogram,"
    " bool return_activation, str backend='auto')"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("fastconv::conv_reduce", ("CPU", "CUDA"))
def _run(input, *args):
    args, backend = (args, "auto") if len(args) == 11 else (args[:-1], args[-1])
    return dispatch.select("conv_reduce", backend, input.device, input, *args)(input, *args)


@torch.library.register_fake("fastconv::conv_reduce")
def _fake(input, weight, bias, stride, padding, dilation, groups, *rest):
    return_activation = rest[4]
    pairs = tuple(zip(padding[::2], padding[1::2], strict=True))
    geometry = ConvGeometry(tuple(weight.shape[2:]), tuple(stride), pairs, tuple(dilation), groups)
    shape = (input.shape[0], weight.shape[0], *geometry.output_size(input.shape[2:]))
    activation = input.new_empty(shape if return_activation else (0,))
    return (*empty_fields(shape[0], shape[1], input.device), activation)


def conv_reduce(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str | None = None,
    histogram: bool | Tensor = False,
    return_activation: bool = False,
    backend: str = "auto",
) -> Reduction:
    """Reduce `activation(scale * conv(input, weight, bias) + shift)` over its positions.

    Args:
        input: [N, C_in, *spatial] with 1 to 3 spatial dimensions, float32, float16, bfloat16 or
            float64 (float64 on the reference backend only), contiguous or channels_last.
        weight: [C_out, C_in / groups, *kernel], the dtype and device of `input`.
        bias: [C_out] or None.
        stride, padding, dilation, groups: as in `torch.nn.functional.conv*d`, "same" and
            "valid" included.
        scale, shift, activation, histogram, backend: as in `channel_reduce`, over C_out channels.
        return_activation: also return the activation, rounded to the dtype of `input`.

    Returns:
        A `Reduction` of [N, C_out] tensors; `activation` is [N, C_out, *spatial] when asked for.

    Raises:
        InputError: shapes, dtypes or devices that do not fit, or an empty output.
        BackendUnavailableError: the named backend cannot run this call.

    Numerics:
        Products are accumulated in float32 at least; the value reduced is that float32 value.
        Sums over positions are combined in float64, in an order that does not depend on the batch
        or the number of threads. Ties go to the first position. See docs/numerics.md.

    Inference only: no gradient flows through the result.

    Example:
        >>> import fastconv, torch
        >>> image = torch.tensor([0.0, 0, 1, 1, 1, 0]).expand(1, 1, 4, 6)
        >>> edge = torch.tensor([[[[-1.0, 1.0]]]])
        >>> found = fastconv.conv_reduce(image, edge)
        >>> found.max, found.argmax, found.count  # the first of 4 x 5 positions with the value 1
        (tensor([[1.]]), tensor([[1]]), 20)
    """
    geometry, positions = _checked_geometry(input, weight, bias, stride, padding, dilation, groups)
    check_affine(scale, shift, weight.shape[0], input)
    check_activation(activation)
    counts = histogram_buffer(histogram, weight.shape[0], input.device)
    given = (*_arguments(input, weight, bias, geometry), scale, shift, activation, counts)
    results = dispatch.run("conv_reduce", backend, *given, return_activation)
    return _reduction(results, positions, counts, written=return_activation)


def kernel_of_module(input: Tensor, module: Convolution, backend: str) -> Kernel:
    """The kernel that runs a module on inputs like `input` [N, C_in, *spatial], N may be 0.

    Raises:
        BackendUnavailableError: the named backend cannot run it.
    """
    shape, padding = module.weight.shape[2:], module.padding
    geometry = ConvGeometry.create(shape, module.stride, padding, module.dilation, module.groups)
    given = _arguments(input, module.weight, module.bias, geometry)
    return dispatch.kernel("conv_reduce", backend, input.device, *given)


def conv_reduce_in_network(
    input: Tensor,
    module: Convolution,
    *,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    histogram: bool | Tensor,
    written: bool,
    post_ops: PostOps | None,
    candidates: CandidateLists | None = None,
    packed: dict[nn.Module, Tensor] | None = None,
    backend: str,
) -> Reduction:
    """`conv_reduce` of a module where the network goes on with another value than is reduced.

    `activation` of the result is what `post_ops` makes of the value reduced, or that itself; None
    unless `written`. `candidates`: lists to fill. `packed` keeps weights as the kernel reads them,
    by module: the caller knows how long they stay as they are.
    """
    weight, bias = module.weight, module.bias
    geometry, positions = _checked_geometry(
        input, weight, bias, module.stride, module.padding, module.dilation, module.groups
    )
    counts = histogram_buffer(histogram, weight.shape[0], input.device)
    given = (*_arguments(input, weight, bias, geometry), scale, shift, activation, counts, written)
    wanted = {"post_ops": post_ops, "candidates": candidates}
    extra: dict[str, object] = {name: value for name, value in wanted.items() if value is not None}
    kernel = dispatch.kernel("conv_reduce", backend, input.device, *given, needs=extra.keys())
    if kernel.pack is not None and packed is not None:
        if module not in packed:
            packed[module] = kernel.pack(
                weight, geometry.stride, geometry.dilation, geometry.groups
            )
        extra["packed"] = packed[module]
    return _reduction(kernel.run(*given, **extra), positions, counts, written=written)


def _arguments(
    input: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry
) -> tuple[Any, ...]:
    """The first arguments of the op."""
    padding = [p for pair in geometry.padding for p in pair]
    stride, dilation = list(geometry.stride), list(geometry.dilation)
    return input, weight, bias, stride, padding, dilation, geometry.groups


def _reduction(
    results: Sequence[Tensor], positions: int, counts: Tensor | None, *, written: bool
) -> Reduction:
    *fields, activation = results
    return Reduction._make((*fields, positions, counts, activation if written else None))


def _checked_geometry(
    input, weight, bias, stride, padding, dilation, groups
) -> tuple[ConvGeometry, int]:
    """The geometry, and how many positions the output has."""
    check_dtype(input, "input")
    rank, shape, size = weight.ndim - 2, weight.shape, input.shape[2:]
    if not 1 <= rank <= 3:
        raise InputError(f"weight must be [C_out, C_in/groups, *kernel], got {list(shape)}")
    if len(size) != rank:
        raise InputError(
            f"input must be [N, C_in, *spatial] with {rank} spatial dimensions like the weight, "
            f"got {list(input.shape)}"
        )
    if groups < 1 or input.shape[1] != shape[1] * groups or shape[0] % groups:
        raise InputError(
            f"{input.shape[1]} input channels, weight {list(shape)} and groups={groups} "
            "do not fit: input needs weight.shape[1] * groups channels, "
            "and C_out must be a multiple of groups"
        )
    if 0 in shape:
        raise InputError(f"weight is empty: {list(shape)}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and (value.dtype != input.dtype or value.device != input.device):
            raise InputError(
                f"{name} is {value.dtype} on {value.device}, "
                f"the input {input.dtype} on {input.device}"
            )
    if bias is not None and bias.shape != shape[:1]:
        raise InputError(f"bias must be [{shape[0]}], got {list(bias.shape)}")
    geometry = ConvGeometry.create(shape[2:], stride, padding, dilation, groups)
    output = geometry.output_size(size)
    if min(output) < 1:
        raise InputError(
            f"the output is empty: input {list(size)} with padding {geometry.padding} "
            f"is smaller than the window {geometry.extent}"
        )
    return geometry, math.prod(output)
