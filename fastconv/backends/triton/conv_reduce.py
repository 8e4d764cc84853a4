from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton
from torch import Tensor

from fastconv.backends.triton import tuning
from fastconv.backends.triton.kernels.conv_reduce_direct import conv_reduce_direct_kernel
from fastconv.backends.triton.kernels.conv_reduce_pointer import conv_reduce_pointer_kernel
from fastconv.backends.triton.launch import launch, merge_segments, unsupported
from fastconv.backends.triton.layout import dense_activation, five_strides, three
from fastconv.geometry import ConvGeometry
from fastconv.reduction import empty_fields


class Problem(NamedTuple):
    """A convolution as the kernels see it: three spatial dimensions (d, h, w) whatever its rank."""

    size: tuple[int, int, int]
    out_size: tuple[int, int, int]
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    before: tuple[int, int, int]  # padding
    dilation: tuple[int, int, int]
    groups: int
    group_in: int
    group_out: int
    padded: bool  # some window reaches outside the input

    @property
    def positions(self) -> int:
        return self.out_size[0] * self.out_size[1] * self.out_size[2]


def problem(x: Tensor, weight: Tensor, stride, padding, dilation, groups: int) -> Problem:
    pairs = tuple(zip(padding[::2], padding[1::2], strict=True))
    geometry = ConvGeometry(tuple(weight.shape[2:]), tuple(stride), pairs, tuple(dilation), groups)
    return Problem(
        three(x.shape[2:], 1),
        three(geometry.output_size(x.shape[2:]), 1),
        three(geometry.kernel, 1),
        three(geometry.stride, 1),
        three(padding[::2], 0),
        three(geometry.dilation, 1),
        groups,
        weight.shape[1],
        weight.shape[0] // groups,
        padded=max(padding) > 0,
    )


def supports(
    x: Tensor, weight: Tensor, bias, stride, padding, dilation, groups, *rest
) -> str | None:
    return unsupported(x) or unsupported(weight[None])


def run(
    x: Tensor,
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
) -> tuple[Tensor, ...]:
    case = problem(x, weight, stride, padding, dilation, groups)
    size = case.out_size[3 - (x.ndim - 2) :]
    channels = weight.shape[0]
    written = x.new_empty((x.shape[0], channels, *size) if return_activation else (0,))
    epilogue = {
        "bias": bias,
        "scale": scale,
        "shift": shift,
        "histogram": histogram,
        "activation": written if return_activation else None,
        "ACTIVATION": activation,
    }
    start = conv_direct if groups > 1 and case.group_out < 16 else conv_pointer
    return (*start(x, weight, case, epilogue), written)


def packed(weight: Tensor) -> Tensor:
    """[C_out, taps, C_in / groups]: channels next to each other, as the GEMM walks over them."""
    return weight.movedim(1, -1).contiguous()


def conv_pointer(x: Tensor, weight: Tensor, case: Problem, epilogue: dict) -> tuple[Tensor, ...]:
    """Kernel B: a GEMM on pointers, any layout and any groups."""
    x, _, _ = dense_activation(x)
    precision = tuning.conv_precision(x)
    heavy = epilogue["histogram"] is not None or epilogue["activation"] is not None
    config = tuning.conv_pointer(x, precision, case.group_out, case.positions, heavy=heavy)
    blocks = case.groups * triton.cdiv(case.group_out, config.block_m)
    constants = {
        "FLAT": case.group_in < config.block_k,
        "PRECISION": precision,
        "BLOCK_K": config.block_k,
    }
    return _start(conv_reduce_pointer_kernel, x, weight, case, epilogue, config, blocks, constants)


def conv_direct(x: Tensor, weight: Tensor, case: Problem, epilogue: dict) -> tuple[Tensor, ...]:
    """Depthwise and small groups: no GEMM, one multiply-add per tap."""
    x, stride_c, _ = dense_activation(x)
    channels = weight.shape[0]
    config = tuning.conv_direct(x.device, channels, case.positions, channels_last=stride_c == 1)
    blocks = triton.cdiv(channels, config.block_m)
    return _start(conv_reduce_direct_kernel, x, weight, case, epilogue, config, blocks, {})


def _start(kernel, x, weight, case, epilogue, config, blocks, constants) -> tuple[Tensor, ...]:
    samples, channels = x.shape[0], weight.shape[0]
    segments = triton.cdiv(case.positions, config.tiles * config.block_n)
    parts = empty_fields(segments * samples, channels, x.device)
    sample_stride, *x_stride = five_strides(x)
    if samples:
        launch(
            kernel,
            (samples, blocks, segments),
            x.device,
            warps=config.warps,
            stages=config.stages,
            x=x,
            w=packed(weight),
            fields=parts,
            SAMPLES=samples,
            CHANNELS=channels,
            size=case.size,
            out_size=case.out_size,
            x_stride=tuple(x_stride),
            sample_stride=sample_stride,
            GROUP_IN=case.group_in,
            GROUP_OUT=case.group_out,
            KERNEL=case.kernel,
            STRIDE=case.stride,
            PADDING=case.before,
            DILATION=case.dilation,
            PADDED=case.padded,
            TILES=config.tiles,
            BLOCK_M=config.block_m,
            BLOCK_N=config.block_n,
            **epilogue,
            **constants,
        )
    return merge_segments(parts, segments)
