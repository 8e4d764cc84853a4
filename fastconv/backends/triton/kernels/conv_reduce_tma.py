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
def add_plane(
    acc, x, w, first_m, n, corner, PLANE: tl.constexpr,
    C_IN: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    DILATION: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """acc += the taps PLANE, PLANE + STEP, ... of every dimension: those of one parity plane.

    For output position p, tap t reads row p + (t * DILATION - PADDING) // STRIDE of its plane;
    outside of it TMA gives zeros.
    """
    TAPS_D: tl.constexpr = (KERNEL[0] - PLANE[0] + STEP[0] - 1) // STEP[0]
    TAPS_H: tl.constexpr = (KERNEL[1] - PLANE[1] + STEP[1] - 1) // STEP[1]
    TAPS_W: tl.constexpr = (KERNEL[2] - PLANE[2] + STEP[2] - 1) // STEP[2]
    BLOCKS: tl.constexpr = (C_IN + BLOCK_K - 1) // BLOCK_K
    d0 = corner[0] + (PLANE[0] * DILATION[0] - PADDING[0]) // STRIDE[0]
    h0 = corner[1] + (PLANE[1] * DILATION[1] - PADDING[1]) // STRIDE[1]
    w0 = corner[2] + (PLANE[2] * DILATION[2] - PADDING[2]) // STRIDE[2]
    for step in range(0, TAPS_D * TAPS_H * TAPS_W * BLOCKS):
        c = (step % BLOCKS) * BLOCK_K
        tap = step // BLOCKS
        iw = tap % TAPS_W
        ih = (tap // TAPS_W) % TAPS_H
        id = tap // (TAPS_W * TAPS_H)
        d = d0 + id * (STEP[0] * DILATION[0] // STRIDE[0])
        h = h0 + ih * (STEP[1] * DILATION[1] // STRIDE[1])
        at = w0 + iw * (STEP[2] * DILATION[2] // STRIDE[2])
        row = (PLANE[0] + id * STEP[0]) * KERNEL[1] + PLANE[1] + ih * STEP[1]
        b = x.load([n, d, h, at, c]).reshape(BLOCK_N, BLOCK_K)
        a = w.load([first_m, row * KERNEL[2] + PLANE[2] + iw * STEP[2], c])
        acc = multiply(a.reshape(BLOCK_M, BLOCK_K), b.T, acc, PRECISION)
    return acc


@triton.jit
def in_box(index, corner, BOX: tl.constexpr):
    """Output coordinates (d, h, w) of the index-th position of a tile."""
    d = corner[0] + index // (BOX[2] * BOX[3])
    h = corner[1] + (index // BOX[3]) % BOX[2]
    return d, h, corner[2] + index % BOX[3]


@triton.jit
def flat(at, out_size):
    """Flat output position of coordinates (d, h, w)."""
    return (at[0] * out_size[1] + at[1]) * out_size[2] + at[2]


@triton.jit
def conv_reduce_tma_kernel(
    x0,  # descriptors of up to four parity planes, each [N, d, h, w, C_in], or None; one by one,
    x1,  # since triton 3.6 launches no tuples of descriptors
    x2,
    x3,
    w,  # descriptor of [C_out, taps, C_in]
    given,  # conv_problem.Given: what the epilogue adds, and writes beside the fields
    fields,  # eight tensors [segments, N, C_out]
    SAMPLES,
    CHANNELS,  # C_out
    BLOCKS,  # of channels
    out_size,  # (d, h, w)
    C_IN: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,  # before
    DILATION: tl.constexpr,
    STEP: tl.constexpr,  # taps from one to the next in the same plane
    PLANES: tl.constexpr,  # per dimension
    BOX: tl.constexpr,  # samples, d, h, w: the positions of a tile
    TILES: tl.constexpr,  # of one segment
    PRECISION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POST_ACTIVATION: tl.constexpr,  # activation of what is written, after its own affine map
    LARGEST: tl.constexpr,  # of the candidates
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: BLOCK_M channels of BOX[0] samples over one segment of tiles."""
    x = (x0, x1, x2, x3)
    PLANES_D: tl.constexpr = PLANES[0]
    PLANES_H: tl.constexpr = PLANES[1]
    PLANES_W: tl.constexpr = PLANES[2]
    BLOCK_P: tl.constexpr = BOX[1] * BOX[2] * BOX[3]
    BLOCK_N: tl.constexpr = BOX[0] * BLOCK_P
    first_n = (tl.program_id(0) // BLOCKS) * BOX[0]
    first_m = (tl.program_id(0) % BLOCKS) * BLOCK_M
    segment = tl.program_id(1)
    channel = first_m + tl.arange(0, BLOCK_M)
    inside_m = channel < CHANNELS
    sample = (first_n + tl.arange(0, BOX[0])).to(tl.int64)[None, :]
    inside_row = (sample < SAMPLES) & inside_m[:, None]
    row = sample * CHANNELS + channel[:, None]  # [BLOCK_M, samples]
    rows_w = tl.cdiv(out_size[2], BOX[3])
    rows_h = tl.cdiv(out_size[1], BOX[2])
    tiles = rows_w * rows_h * tl.cdiv(out_size[0], BOX[1])
    state = new_state(row)
    for tile in range(segment * TILES, tl.minimum(tiles, (segment + 1) * TILES)):
        corner = (
            (tile // (rows_w * rows_h)) * BOX[1],
            ((tile // rows_w) % rows_h) * BOX[2],
            (tile % rows_w) * BOX[3],
        )
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for d in tl.static_range(PLANES_D):
            for h in tl.static_range(PLANES_H):
                for v in tl.static_range(PLANES_W):
                    acc = add_plane(
                        acc, x[(d * PLANES_H + h) * PLANES_W + v], w, first_m, first_n,
                        corner, (d, h, v), C_IN, KERNEL, STRIDE, PADDING, DILATION, STEP,
                        PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
                    )  # fmt: skip
        at = in_box(tl.arange(0, BLOCK_P)[None, None, :], corner, BOX)
        inside = (at[0] < out_size[0]) & (at[1] < out_size[1]) & (at[2] < out_size[2])
        value = acc.reshape(BLOCK_M, BOX[0], BLOCK_P)
        part = finish_tile(
            value, given, row[:, :, None], sample[:, :, None], flat(at, out_size),
            out_size[0] * out_size[1] * out_size[2], channel, inside_m, inside_row[:, :, None],
            inside, ACTIVATION, POST_ACTIVATION, LARGEST,
        )  # fmt: skip
        argmax = flat(in_box(part[4], corner, BOX), out_size)
        state = add_tile(state, part, argmax, flat(in_box(part[5], corner, BOX), out_size))
    store_state(fields, segment.to(tl.int64) * SAMPLES * CHANNELS + row, state, inside_row)
