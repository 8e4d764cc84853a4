"""Convolutions on plain pointers: any layout, any groups, 1-D to 3-D."""

from __future__ import annotations

import triton
from torch import Tensor

from fastconv.backends.triton import tuning
from fastconv.backends.triton.conv_problem import Epilogue, Problem, packed
from fastconv.backends.triton.kernels.conv_reduce_direct import conv_reduce_direct_kernel
from fastconv.backends.triton.kernels.conv_reduce_pointer import conv_reduce_pointer_kernel
from fastconv.backends.triton.launch import launch, merge_segments
from fastconv.backends.triton.layout import dense_activation, five_strides
from fastconv.reduction import empty_fields


def gemm(x: Tensor, weight: Tensor, case: Problem, epilogue: Epilogue) -> tuple[Tensor, ...]:
    """Kernel B: a GEMM on pointers, any layout and any groups."""
    x, _, _ = dense_activation(x)
    precision = tuning.conv_precision(x)
    config = tuning.conv_pointer(x, precision, case.group_out, case.positions, heavy=epilogue.heavy)
    config = tuning.with_candidates(config) if epilogue.lists else config
    blocks = case.groups * triton.cdiv(case.group_out, config.block_m)
    constants = {
        "FLAT": case.group_in < config.block_k,
        "PRECISION": precision,
        "BLOCK_K": config.block_k,
    }
    return _start(conv_reduce_pointer_kernel, x, weight, case, epilogue, config, blocks, constants)


def direct(x: Tensor, weight: Tensor, case: Problem, epilogue: Epilogue) -> tuple[Tensor, ...]:
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
            (samples * blocks, segments),
            x.device,
            warps=config.warps,
            stages=config.stages,
            x=x,
            w=packed(weight),
            fields=parts,
            SAMPLES=samples,
            CHANNELS=channels,
            BLOCKS=blocks,
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
            **epilogue._asdict(),
            **constants,
        )
    return merge_segments(parts, segments)
