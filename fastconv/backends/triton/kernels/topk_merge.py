from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_entries(old, new, channel, index, SLOTS, CANDIDATES):
    """Sort key (ascending), sample, position and value of the entries at index; empty ones last."""
    is_old = index < SLOTS
    is_new = (index >= SLOTS) & (index < SLOTS + CANDIDATES)
    at_old = channel * SLOTS + index
    at_new = channel * CANDIDATES + index - SLOTS
    value = tl.load(old[0] + at_old, mask=is_old, other=0.0)
    sample = tl.load(old[1] + at_old, mask=is_old, other=-1)
    position = tl.load(old[2] + at_old, mask=is_old, other=-1)
    value = tl.where(is_new, tl.load(new[0] + at_new, mask=is_new, other=0.0), value)
    sample = tl.where(is_new, tl.load(new[1] + at_new, mask=is_new, other=-1), sample)
    position = tl.where(is_new, tl.load(new[2] + at_new, mask=is_new, other=-1), position)
    empty = (sample < 0) | ~(tl.abs(value) < float("inf"))
    sample = tl.where(empty, -1, sample)
    position = tl.where(empty, -1, position)
    return value, sample, position, empty


@triton.jit
def topk_merge_kernel(
    old,  # values, samples, positions [C, SLOTS]
    new,  # the same of the candidates [C, CANDIDATES]
    out,  # values, samples, positions, source [C, SLOTS]
    SLOTS,
    CANDIDATES,
    LARGEST: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Each entry counts how many come before it in the total order: that is its slot."""
    channel = tl.program_id(0).to(tl.int64)
    entry = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value, sample, position, empty = load_entries(old, new, channel, entry, SLOTS, CANDIDATES)
    key = tl.where(empty, float("inf"), -value if LARGEST else value)[:, None]
    my_sample, my_position, index = sample[:, None], position[:, None], entry[:, None]
    rank = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, SLOTS + CANDIDATES, STEP):
        other = start + tl.arange(0, STEP)
        v, s, p, none = load_entries(old, new, channel, other, SLOTS, CANDIDATES)
        k = tl.where(none, float("inf"), -v if LARGEST else v)[None, :]
        s, p, other = s[None, :], p[None, :], other[None, :]
        first = (p < my_position) | ((p == my_position) & (other < index))
        first = (s < my_sample) | ((s == my_sample) & first)
        first = (k < key) | ((k == key) & first)
        rank += tl.sum((first & (other < SLOTS + CANDIDATES)).to(tl.int32), 1)
    kept = (rank < SLOTS) & (entry < SLOTS + CANDIDATES)
    to = channel * SLOTS + rank
    tl.store(out[0] + to, tl.where(empty, float("nan"), value), mask=kept)
    tl.store(out[1] + to, sample, mask=kept)
    tl.store(out[2] + to, position, mask=kept)
    tl.store(out[3] + to, tl.where(empty, -1, entry).to(tl.int64), mask=kept)
