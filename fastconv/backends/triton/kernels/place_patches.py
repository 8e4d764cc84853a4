from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def colour(value):
    """0 to 255, halves to even; 0 for NaN."""
    value = tl.where(value > 0.0, value, 0.0)  # NaN, too
    value = tl.where(value < 255.0, value, 255.0)
    rounded = (value + 12582912.0) - 12582912.0  # 1.5 * 2^23: the sum has no room for a fraction
    return rounded.to(tl.int32).to(tl.uint8)


@triton.jit
def place_patches_kernel(
    x,
    index,  # [M] int64
    start,  # [M, RANK] int64
    slot,  # [M] int64: the place of a patch in out, none below 0; None: its own number
    low,  # [C]: out is the colours (value - low) * scale of float x; or None
    scale,
    out,  # [slots, C, *size], or uint8 [slots, *size, 3]
    SAMPLES,
    CHANNELS,
    size,  # of a patch: (d, h, w)
    extent,  # of the input
    stride,  # of the input: (n, c, d, h, w), elements
    RANK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK elements of one patch."""
    patch = tl.program_id(0).to(tl.int64)
    to = patch
    if slot is not None:
        to = tl.load(slot + patch)
    if to >= 0:
        element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        volume = size[0] * size[1] * size[2]
        if low is not None:
            values = 3 * volume
            point = element // 3
            channel = tl.minimum(element % 3, CHANNELS - 1)
        else:
            values = CHANNELS * volume
            point = element % volume
            channel = element // volume
        inside = element < values
        sample = tl.load(index + patch)
        row = point // size[2]
        w = point % size[2] + tl.load(start + patch * RANK + RANK - 1)
        h = row % size[1]
        d = row // size[1]
        if RANK > 1:
            h += tl.load(start + patch * RANK + RANK - 2)
        if RANK > 2:
            d += tl.load(start + patch * RANK + RANK - 3)
        d = tl.where((sample >= 0) & (sample < SAMPLES), d, -1)  # no such row: outside
        exists = (d >= 0) & (d < extent[0]) & (h >= 0) & (h < extent[1])
        exists = exists & (w >= 0) & (w < extent[2])
        at = sample * stride[0] + channel.to(tl.int64) * stride[1]
        at += d * stride[2] + h * stride[3] + w * stride[4]
        value = tl.load(x + at, mask=inside & exists, other=0)
        if low is not None:
            lowest = tl.load(low + channel, mask=inside, other=0.0)
            value = colour((value - lowest) * tl.load(scale + channel, mask=inside, other=0.0))
        tl.store(out + to * values + element, value, mask=inside)
