from __future__ import annotations

import triton
import triton.language as tl

from fastconv.backends.triton.kernels.conv_reduce_pointer import seen, tap_shift, window_corner
from fastconv.backends.triton.kernels.epilogue import (
    add_tile,
    finish_tile,
    new_state,
    store_state,
)


@triton.jit
def conv_reduce_direct_kernel(
    x,
    w,  # [C_out, taps, C_in / groups]
    given,  # conv_problem.Given: what the epilogue adds, and writes beside the fields
    fields,  # eight tensors [segments, N, C_out]
    SAMPLES,
    CHANNELS,  # C_out
    BLOCKS,  # of channels
    size,  # of the input: (d, h, w)
    out_size,  # of the output
    x_stride,  # (channel, d, h, w), elements
    sample_stride,
    GROUP_IN: tl.constexpr,  # channels of one group
    GROUP_OUT: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,  # before
    DILATION: tl.constexpr,
    PADDED: tl.constexpr,  # some window reaches outside the input
    TILES: tl.constexpr,  # of one segment
    ACTIVATION: tl.constexpr,
    POST_ACTIVATION: tl.constexpr,  # activation of what is written, after its own affine map
    LARGEST: tl.constexpr,  # of the candidates
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Depthwise and small groups, one multiply-add per tap: a block of channels may span groups."""
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    sample = (tl.program_id(0) // BLOCKS).to(tl.int64)
    segment = tl.program_id(1)
    channel = (tl.program_id(0) % BLOCKS) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside_m = channel < CHANNELS
    positions = out_size[0] * out_size[1] * out_size[2]
    x += sample * sample_stride
    first_in = (channel // GROUP_OUT) * (GROUP_IN * x_stride[0])  # [BLOCK_M]
    weights = w + channel * (TAPS * GROUP_IN)
    row = sample * CHANNELS + channel
    state = new_state(channel)
    end = tl.minimum(positions, (segment + 1) * (TILES * BLOCK_N))
    for start in range(segment * (TILES * BLOCK_N), end, BLOCK_N):
        position = start + tl.arange(0, BLOCK_N)
        valid = position < positions
        inside = inside_m[:, None] & valid[None, :]
        corner = window_corner(position, out_size, STRIDE, PADDING)
        v = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in range(0, TAPS * GROUP_IN):
            at = tap_shift(step // GROUP_IN, KERNEL, DILATION)
            offset, exists = seen(corner, at, size, x_stride, PADDED)
            pixel = first_in + (step % GROUP_IN) * x_stride[0]
            a = tl.load(weights + step, mask=inside_m, other=0.0).to(tl.float32)
            b = tl.load(
                x + pixel[:, None] + offset[None, :], mask=inside & exists[None, :], other=0.0
            )
            v = tl.fma(a[:, None], b.to(tl.float32), v)
        tile = finish_tile(
            v, given, row[:, None], sample, position[None, :], positions, channel, inside_m,
            inside_m[:, None], valid[None, :], ACTIVATION, POST_ACTIVATION, LARGEST,
        )  # fmt: skip
        state = add_tile(state, tile, start + tile[4], start + tile[5])
    store_state(fields, segment.to(tl.int64) * SAMPLES * CHANNELS + row, state, inside_m)
