from __future__ import annotations

import triton
import triton.language as tl

from fastconv.backends.triton.kernels.epilogue import (
    NO_POSITION,
    count_bins,
    list_candidates,
    merge,
    new_state,
    store_state,
    transform,
)


@triton.jit
def load_values(
    base,
    start,
    inside_c,
    channel,
    scale,
    shift,
    POSITIONS,
    stride_p,
    BLOCK_P: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """Values [BLOCK_C, BLOCK_P] from position start on, which of them exist, and where they are."""
    position = start + tl.arange(0, BLOCK_P)[None, :]
    inside = inside_c[:, None] & (position < POSITIONS)
    v = tl.load(base + position * stride_p, mask=inside, other=0.0).to(tl.float32)
    return transform(v, None, scale, shift, channel, inside_c, ACTIVATION), inside, position


@triton.jit
def channel_reduce_kernel(
    x,
    scale,
    shift,
    fields,  # eight tensors [segments, N, C]
    histogram,  # [C, bins] or None
    candidates,  # see epilogue.list_candidates; or None
    SAMPLES,
    CHANNELS,
    POSITIONS,
    stride_c,  # of x, in elements; one of these two is 1
    stride_p,
    TILES: tl.constexpr,  # of one segment
    STEPS: tl.constexpr,  # of one tile
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    ACTIVATION: tl.constexpr,
    LARGEST: tl.constexpr,  # of the candidates
):
    """One program: some channels of one sample over one segment of positions.

    Within a tile every lane keeps its own float32 sums and extrema; lanes are reduced once a tile.
    """
    TILE: tl.constexpr = STEPS * BLOCK_P
    sample = tl.program_id(0).to(tl.int64)
    segment = tl.program_id(2)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside_c = channel < CHANNELS
    base = x + sample * CHANNELS * POSITIONS + channel[:, None] * stride_c  # [BLOCK_C, 1]
    state = new_state(channel)
    end = tl.minimum(POSITIONS, (segment + 1) * (TILES * TILE))
    for first in range(segment * (TILES * TILE), end, TILE):
        total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
        square = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
        high = tl.full((BLOCK_C, BLOCK_P), float("-inf"), tl.float32)
        low = tl.full((BLOCK_C, BLOCK_P), float("inf"), tl.float32)
        argmax = tl.full((BLOCK_C, BLOCK_P), NO_POSITION, tl.int32)
        argmin = tl.full((BLOCK_C, BLOCK_P), NO_POSITION, tl.int32)
        positive = tl.zeros((BLOCK_C, BLOCK_P), tl.int32)
        nonfinite = tl.zeros((BLOCK_C, BLOCK_P), tl.int32)
        tile_end = tl.minimum(POSITIONS, first + TILE)
        for start in range(first, tile_end, BLOCK_P):
            v, inside, position = load_values(
                base,
                start,
                inside_c,
                channel,
                scale,
                shift,
                POSITIONS,
                stride_p,
                BLOCK_P,
                ACTIVATION,
            )
            if histogram is not None:
                count_bins(histogram, v, inside, channel[:, None])
            if candidates is not None:
                place = sample * POSITIONS + position
                list_candidates(candidates, v, inside, channel, inside_c, place, LARGEST)
            finite = tl.abs(v) < float("inf")  # false for NaN
            ok = inside & finite
            w = tl.where(ok, v, 0.0)
            total += w
            square += w * w
            higher = ok & (v > high)
            lower = ok & (v < low)
            high = tl.where(higher, v, high)
            argmax = tl.where(higher, position, argmax)
            low = tl.where(lower, v, low)
            argmin = tl.where(lower, position, argmin)
            positive += (w > 0.0).to(tl.int32)
            nonfinite += (inside & ~finite).to(tl.int32)
        tile_total = tl.sum(total, 1).to(tl.float64)
        tile_square = tl.sum(square, 1).to(tl.float64)
        over = (tile_square == float("inf")).to(tl.int32)
        if tl.max(over, 0) > 0:  # values above 2^64: read the tile again, in float64
            wide_total = tl.zeros((BLOCK_C,), tl.float64)
            wide_square = tl.zeros((BLOCK_C,), tl.float64)
            for start in range(first, tile_end, BLOCK_P):
                v, inside, position = load_values(
                    base,
                    start,
                    inside_c,
                    channel,
                    scale,
                    shift,
                    POSITIONS,
                    stride_p,
                    BLOCK_P,
                    ACTIVATION,
                )
                w = tl.where(inside & (tl.abs(v) < float("inf")), v, 0.0).to(tl.float64)
                wide_total += tl.sum(w, 1)
                wide_square += tl.sum(w * w, 1)
            tile_total = tl.where(over > 0, wide_total, tile_total)
            tile_square = tl.where(over > 0, wide_square, tile_square)
        tile_high = tl.max(high, 1)
        tile_low = tl.min(low, 1)
        state = merge(
            state,
            (
                tile_total,
                tile_square,
                tile_low,
                tile_high,
                tl.min(tl.where(high == tile_high[:, None], argmax, NO_POSITION), 1),
                tl.min(tl.where(low == tile_low[:, None], argmin, NO_POSITION), 1),
                tl.sum(positive, 1),
                tl.sum(nonfinite, 1),
            ),
        )
    row = (segment * SAMPLES + sample) * CHANNELS + channel
    store_state(fields, row, state, inside_c)
