from __future__ import annotations

import triton
import triton.language as tl

from fastconv.backends.triton.kernels.epilogue import (
    add_tile,
    finish_tile,
    multiply,
    new_state,
    store_state,
)


@triton.jit
def window_corner(position, out_size, STRIDE: tl.constexpr, PADDING: tl.constexpr):
    """First input coordinates (d, h, w) of the windows of output positions."""
    row = position // out_size[2]
    w = (position % out_size[2]) * STRIDE[2] - PADDING[2]
    h = (row % out_size[1]) * STRIDE[1] - PADDING[1]
    d = (row // out_size[1]) * STRIDE[0] - PADDING[0]
    return d, h, w


@triton.jit
def tap_shift(tap, KERNEL: tl.constexpr, DILATION: tl.constexpr):
    """Where kernel element tap lies in the window: (d, h, w) in input pixels."""
    w = (tap % KERNEL[2]) * DILATION[2]
    h = ((tap // KERNEL[2]) % KERNEL[1]) * DILATION[1]
    d = (tap // (KERNEL[2] * KERNEL[1])) * DILATION[0]
    return d, h, w


@triton.jit
def seen(corner, shift, size, x_stride, PADDED: tl.constexpr):
    """Element offsets of the input pixels at corner + shift, and which of them exist."""
    d = corner[0] + shift[0]
    h = corner[1] + shift[1]
    w = corner[2] + shift[2]
    offset = d * x_stride[1] + h * x_stride[2] + w * x_stride[3]
    exists = offset == offset
    if PADDED:
        exists = (d >= 0) & (d < size[0]) & (h >= 0) & (h < size[1]) & (w >= 0) & (w < size[2])
    return offset, exists


@triton.jit
def convolve_tile(
    x, w, position, valid, row, inside_m, size, out_size, x_stride,
    GROUP_IN: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    DILATION: tl.constexpr, PADDED: tl.constexpr, FLAT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The convolution at some positions, float32: channels on M, positions on N."""
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    GEMM_K: tl.constexpr = TAPS * GROUP_IN
    BLOCKS: tl.constexpr = (GROUP_IN + BLOCK_K - 1) // BLOCK_K
    corner = window_corner(position, out_size, STRIDE, PADDING)
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if FLAT:  # few input channels: blocks of K run over (tap, channel) together
        corner = (corner[0][None, :], corner[1][None, :], corner[2][None, :])
        for start in range(0, GEMM_K, BLOCK_K):
            at = start + k
            inside_k = at < GEMM_K
            shift = tap_shift(at // GROUP_IN, KERNEL, DILATION)
            shift = (shift[0][:, None], shift[1][:, None], shift[2][:, None])
            offset, exists = seen(corner, shift, size, x_stride, PADDED)  # [BLOCK_K, BLOCK_N]
            offset += ((at % GROUP_IN) * x_stride[0])[:, None]
            b = tl.load(x + offset, mask=exists & inside_k[:, None] & valid[None, :], other=0.0)
            a = tl.load(
                w + row[:, None] * GEMM_K + at[None, :],
                mask=inside_m[:, None] & inside_k[None, :],
                other=0.0,
            )
            acc = multiply(a, b, acc, PRECISION)
    else:
        for step in range(0, TAPS * BLOCKS):
            tap = step // BLOCKS
            c = (step % BLOCKS) * BLOCK_K + k
            offset, exists = seen(corner, tap_shift(tap, KERNEL, DILATION), size, x_stride, PADDED)
            inside_k = c < GROUP_IN
            b = tl.load(
                x + (c * x_stride[0])[:, None] + offset[None, :],
                mask=inside_k[:, None] & (exists & valid)[None, :],
                other=0.0,
            )
            a = tl.load(
                w + row[:, None] * GEMM_K + (tap * GROUP_IN + c)[None, :],
                mask=inside_m[:, None] & inside_k[None, :],
                other=0.0,
            )
            acc = multiply(a, b, acc, PRECISION)
    return acc


@triton.jit
def conv_reduce_pointer_kernel(
    x,
    w,  # [C_out, taps, C_in / groups]
    given,  # conv_problem.Given: what the epilogue adds, and writes beside the fields
    fields,  # eight tensors [segments, N, C_out]
    SAMPLES,
    CHANNELS,  # C_out
    BLOCKS,  # of channels, over all groups
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
    FLAT: tl.constexpr,
    PRECISION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POST_ACTIVATION: tl.constexpr,  # activation of what is written, after its own affine map
    LARGEST: tl.constexpr,  # of the candidates
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: BLOCK_M channels of one group of one sample over one segment of positions."""
    sample = (tl.program_id(0) // BLOCKS).to(tl.int64)
    block = tl.program_id(0) % BLOCKS
    segment = tl.program_id(1)
    GROUP_BLOCKS: tl.constexpr = (GROUP_OUT + BLOCK_M - 1) // BLOCK_M
    group = block // GROUP_BLOCKS
    in_group = (block % GROUP_BLOCKS) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside_m = in_group < GROUP_OUT
    channel = group * GROUP_OUT + in_group
    positions = out_size[0] * out_size[1] * out_size[2]
    x += sample * sample_stride + group * GROUP_IN * x_stride[0]
    row = sample * CHANNELS + channel
    state = new_state(channel)
    end = tl.minimum(positions, (segment + 1) * (TILES * BLOCK_N))
    for start in range(segment * (TILES * BLOCK_N), end, BLOCK_N):
        position = start + tl.arange(0, BLOCK_N)
        valid = position < positions
        v = convolve_tile(
            x, w, position, valid, channel, inside_m, size, out_size, x_stride,
            GROUP_IN, KERNEL, STRIDE, PADDING, DILATION, PADDED, FLAT, PRECISION,
            BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip
        tile = finish_tile(
            v, given, row[:, None], sample, position[None, :], positions, channel, inside_m,
            inside_m[:, None], valid[None, :], ACTIVATION, POST_ACTIVATION, LARGEST,
        )  # fmt: skip
        state = add_tile(state, tile, start + tile[4], start + tile[5])
    store_state(fields, segment.to(tl.int64) * SAMPLES * CHANNELS + row, state, inside_m)
