"""Convolutions on tiled TMA descriptors: channels last, one group, aligned channels."""

from __future__ import annotations

from itertools import product
from math import gcd

import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fastconv.backends.triton import tuning
from fastconv.backends.triton.conv_problem import Epilogue, Problem, packed
from fastconv.backends.triton.kernels.conv_reduce_tma import conv_reduce_tma_kernel
from fastconv.backends.triton.launch import launch, merge_segments
from fastconv.backends.triton.layout import three
from fastconv.reduction import empty_fields

_MOST_PLANES = 4


def _steps(case: Problem) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Per dimension: taps from one to the next of the same parity, and planes that are read."""
    step = three([s // gcd(s, d) for s, d in zip(case.stride, case.dilation, strict=True)], 1)
    return step, three([min(k, s) for k, s in zip(case.kernel, step, strict=True)], 1)


def ineligible(x: Tensor, case: Problem) -> str | None:
    """Why the kernel cannot run this convolution, or None."""
    if case.groups != 1:
        return f"{case.groups} groups"
    if case.group_in * x.dtype.itemsize % 16:
        return f"{case.group_in} channels of {x.dtype} are not a multiple of 16 bytes"
    if x.data_ptr() % 16:
        return "the input does not start at a multiple of 16 bytes"
    _, (d, h, w) = _steps(case)
    if d * h * w > _MOST_PLANES:
        return f"stride {case.stride} needs {d * h * w} parity planes, at most {_MOST_PLANES}"
    if any(n < s for n, s in zip(case.size, case.stride, strict=True)):
        return f"the stride {case.stride} exceeds the input {case.size}: a parity plane is empty"
    return tuning.no_tma(x)


def _planes(x: Tensor, case: Problem, box: tuple[int, ...]) -> tuple[TensorDescriptor, ...]:
    """One descriptor per parity plane that the taps read: every stride-th pixel, from its phase."""
    last = x.movedim(1, -1).contiguous()  # a copy where x is not channels_last
    last = last.view(x.shape[0], *case.size, case.group_in)
    _, counts = _steps(case)
    planes = []
    for taps in product(*(range(count) for count in counts)):
        phases = [
            (t * d - p) % s
            for t, d, p, s in zip(taps, case.dilation, case.before, case.stride, strict=True)
        ]
        index = tuple(slice(f, None, s) for f, s in zip(phases, case.stride, strict=True))
        plane = last[(slice(None), *index)]
        planes.append(TensorDescriptor(plane, plane.shape, plane.stride(), box))
    return tuple(planes)


def run(x: Tensor, weight: Tensor, case: Problem, epilogue: Epilogue) -> tuple[Tensor, ...]:
    """Kernel A: an implicit GEMM whose operands TMA fetches, zeros for the padding included."""
    samples, channels = x.shape[0], weight.shape[0]
    config = tuning.conv_tma(x, channels, case.gemm_k, case.positions, heavy=epilogue.heavy)
    config = tuning.with_candidates(config) if epilogue.lists else config
    box = tuning.box(case.out_size, config.block_n)
    tiles = triton.cdiv(case.out_size[0], box[1])
    tiles *= triton.cdiv(case.out_size[1], box[2]) * triton.cdiv(case.out_size[2], box[3])
    segments = triton.cdiv(tiles, config.tiles)
    parts = empty_fields(segments * samples, channels, x.device)
    blocks = triton.cdiv(channels, config.block_m)
    step, planes = _steps(case)
    if samples:
        w = packed(weight)
        read = _planes(x, case, (*box, config.block_k))
        read += (None,) * (_MOST_PLANES - len(read))
        launch(
            conv_reduce_tma_kernel,
            (triton.cdiv(samples, box[0]) * blocks, segments),
            x.device,
            warps=config.warps,
            stages=config.stages,
            **{f"x{number}": plane for number, plane in enumerate(read)},
            w=TensorDescriptor(w, w.shape, w.stride(), (config.block_m, 1, config.block_k)),
            fields=parts,
            SAMPLES=samples,
            CHANNELS=channels,
            BLOCKS=blocks,
            out_size=case.out_size,
            C_IN=case.group_in,
            KERNEL=case.kernel,
            STRIDE=case.stride,
            PADDING=case.before,
            DILATION=case.dilation,
            STEP=step,
            PLANES=planes,
            BOX=box,
            TILES=config.tiles,
            PRECISION=tuning.conv_precision(x),
            BLOCK_M=config.block_m,
            BLOCK_K=config.block_k,
            **epilogue._asdict(),
        )
    return merge_segments(parts, segments)
