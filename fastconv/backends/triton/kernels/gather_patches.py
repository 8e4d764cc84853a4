from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gather_patches_kernel(
    x,
    index,  # [M] int64
    start,  # [M, RANK] int64
    out,  # [M, C, *size]
    CHANNELS,
    size,  # of a patch: (d, h, w)
    extent,  # of the input
    stride,  # of the input: (n, c, d, h, w), elements
    RANK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK elements of one patch."""
    patch = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    volume = size[0] * size[1] * size[2]
    inside = element < CHANNELS * volume
    row = element // size[2]
    w = element % size[2] + tl.load(start + patch * RANK + RANK - 1)
    h = row % size[1]
    d = (row // size[1]) % size[0]
    if RANK > 1:
        h += tl.load(start + patch * RANK + RANK - 2)
    if RANK > 2:
        d += tl.load(start + patch * RANK + RANK - 3)
    exists = (d >= 0) & (d < extent[0]) & (h >= 0) & (h < extent[1]) & (w >= 0) & (w < extent[2])
    channel = (element // volume).to(tl.int64)
    at = tl.load(index + patch) * stride[0] + channel * stride[1]
    at += d * stride[2] + h * stride[3] + w * stride[4]
    value = tl.load(x + at, mask=inside & exists, other=0)
    tl.store(out + patch * CHANNELS * volume + element, value, mask=inside)
