from __future__ import annotations

import triton
import triton.language as tl

from fastconv.backends.triton.kernels.epilogue import transform


@triton.jit
def affine_kernel(
    x,
    out,  # like x
    scale,
    shift,
    CHANNELS,
    POSITIONS,
    BLOCKS,  # of positions
    stride_c,  # elements; one of these two is 1
    stride_p,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """out = scale * x + shift, one block of one sample."""
    sample = (tl.program_id(0) // BLOCKS).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    position = (tl.program_id(0) % BLOCKS) * BLOCK_P + tl.arange(0, BLOCK_P)[None, :]
    inside_c = channel < CHANNELS
    inside = inside_c[:, None] & (position < POSITIONS)
    at = sample * CHANNELS * POSITIONS + channel[:, None] * stride_c + position * stride_p
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    v = transform(v, None, scale, shift, channel, inside_c, None)
    tl.store(out + at, v.to(out.dtype.element_ty), mask=inside)


@triton.jit
def measured_kernel(
    x,
    out,  # like x
    EPS,
    CHANNELS,
    POSITIONS,
    stride_c,  # elements; one of these two is 1
    stride_p,
    MODE: tl.constexpr,  # "instance", "l1" or "l2"
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Normalise some channels of one sample by their own moments or norm, measured in float64."""
    sample = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]
    base = sample * CHANNELS * POSITIONS + channel * stride_c
    total = tl.zeros((BLOCK_C, BLOCK_P), tl.float64)
    for start in range(0, POSITIONS, BLOCK_P):
        position = start + tl.arange(0, BLOCK_P)[None, :]
        inside = (channel < CHANNELS) & (position < POSITIONS)
        v = tl.load(x + base + position * stride_p, mask=inside, other=0.0).to(tl.float64)
        if MODE == "l1":
            v = tl.abs(v)
        elif MODE == "l2":
            v = v * v
        total += v
    total = tl.sum(total, 1)[:, None]  # [BLOCK_C, 1]
    mean = tl.zeros((BLOCK_C, 1), tl.float64)
    if MODE == "instance":
        mean = total / POSITIONS
        square = tl.zeros((BLOCK_C, BLOCK_P), tl.float64)
        for start in range(0, POSITIONS, BLOCK_P):
            position = start + tl.arange(0, BLOCK_P)[None, :]
            inside = (channel < CHANNELS) & (position < POSITIONS)
            v = tl.load(x + base + position * stride_p, mask=inside, other=0.0).to(tl.float64)
            v = tl.where(inside, v - mean, 0.0)
            square += v * v
        factor = 1.0 / tl.sqrt(tl.sum(square, 1)[:, None] / POSITIONS + EPS)
    else:
        norm = tl.sqrt(total) if MODE == "l2" else total
        factor = 1.0 / tl.where(norm < EPS, EPS, norm)  # NaN stays
    for start in range(0, POSITIONS, BLOCK_P):
        position = start + tl.arange(0, BLOCK_P)[None, :]
        inside = (channel < CHANNELS) & (position < POSITIONS)
        at = base + position * stride_p
        v = (tl.load(x + at, mask=inside, other=0.0).to(tl.float64) - mean) * factor
        tl.store(out + at, v.to(tl.float32).to(out.dtype.element_ty), mask=inside)
