"""What the reducing kernels share: multiply, transform, reduce a tile, add it to a state."""

from __future__ import annotations

import triton
import triton.language as tl

from fastconv import histogram

BINS = tl.constexpr(histogram.BINS)
BINS_PER_SIGN = tl.constexpr(histogram.BINS_PER_SIGN)
BIN_SHIFT = tl.constexpr(histogram.BIN_SHIFT)
FIRST_BIN = tl.constexpr((histogram.FIRST_EXPONENT + 127) << (23 - histogram.BIN_SHIFT))
ZERO_BIN = tl.constexpr(histogram.ZERO_BIN)
NO_POSITION = tl.constexpr(0x7FFFFFFF)
HUGE = tl.constexpr(2.0**56)  # rows with larger values are scaled down, lest their squares overflow
DOWN = tl.constexpr(2.0**-72)
UP = tl.constexpr(2.0**72)


@triton.jit
def multiply(a, b, acc, PRECISION: tl.constexpr):
    """a @ b + acc; "upcast" is for the interpreter, see tuning.conv_precision."""
    if PRECISION == "upcast":
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc)
    else:
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def expm1(v):
    """exp(v) - 1 for v <= 0, exact near zero."""
    near = 1.0 + v * (1 / 8)
    near = 1.0 + v * (1 / 7) * near
    near = 1.0 + v * (1 / 6) * near
    near = 1.0 + v * (1 / 5) * near
    near = 1.0 + v * (1 / 4) * near
    near = 1.0 + v * (1 / 3) * near
    near = 1.0 + v * (1 / 2) * near
    return tl.where(v > -0.5, v * near, tl.exp(v) - 1.0)


@triton.jit
def clamp06(v):
    """min(max(v, 0), 6) with NaN kept, as torch does."""
    return tl.where(v < 0.0, 0.0, tl.where(v > 6.0, 6.0, v))


@triton.jit
def activate(v, ACTIVATION: tl.constexpr):
    """torch.nn.functional's function of that name, on float32."""
    if ACTIVATION == "relu":
        v = tl.where(v < 0.0, 0.0, v)
    elif ACTIVATION == "relu6":
        v = clamp06(v)
    elif ACTIVATION == "leaky_relu":
        v = tl.where(v > 0.0, v, v * 0.01)
    elif ACTIVATION == "elu":
        v = tl.where(v > 0.0, v, expm1(tl.where(v > 0.0, 0.0, v)))
    elif ACTIVATION == "gelu":
        v = v * 0.5 * (1.0 + tl.erf(v * 0.7071067811865476))
    elif ACTIVATION == "silu":
        v = v / (1.0 + tl.exp(-v))
    elif ACTIVATION == "sigmoid":
        v = 1.0 / (1.0 + tl.exp(-v))
    elif ACTIVATION == "tanh":
        e = expm1(-2.0 * tl.abs(v))
        v = tl.where(v < 0.0, e, -e) / (e + 2.0)
    elif ACTIVATION == "hardswish":
        v = v * clamp06(v + 3.0) / 6.0
    return v


@triton.jit
def per_channel(pointer, channel, inside, RANK: tl.constexpr):
    """pointer[channel] in float32, [BLOCK_M, 1] or [BLOCK_M, 1, 1]."""
    return like_rows(tl.load(pointer + channel, mask=inside, other=0.0).to(tl.float32), RANK)


@triton.jit
def like_rows(value, RANK: tl.constexpr):
    """[BLOCK_M] as [BLOCK_M, 1] or [BLOCK_M, 1, 1]."""
    value = tl.expand_dims(value, 1)
    if RANK == 3:
        value = tl.expand_dims(value, 2)
    return value


@triton.jit
def transform(v, bias, scale, shift, channel, inside, ACTIVATION: tl.constexpr):
    """activation(scale * (v + bias) + shift); pointers that are None are left out."""
    if bias is not None:
        v += per_channel(bias, channel, inside, len(v.shape))
    if scale is not None:
        v *= per_channel(scale, channel, inside, len(v.shape))
    if shift is not None:
        v += per_channel(shift, channel, inside, len(v.shape))
    return activate(v, ACTIVATION)


@triton.jit
def finish_tile(
    v, given, row, sample, position, positions, channel, inside_m, inside_row, exists,
    ACTIVATION: tl.constexpr, POST_ACTIVATION: tl.constexpr, LARGEST: tl.constexpr,
):  # fmt: skip
    """Transform convolved values, write what is asked for, and reduce them along the last axis.

    v [channels, positions] or [channels, samples, positions]; given: see conv_problem.Given;
    row (of the fields), inside_row, sample and position are broadcast to v; exists: positions,
    for every row.
    """
    bias, scale, shift, histogram, activation, post_scale, post_shift, candidates = given
    v = transform(v, bias, scale, shift, channel, inside_m, ACTIVATION)
    inside = exists & inside_row
    if activation is not None:
        at = activation + row * positions + position
        u = transform(v, None, post_scale, post_shift, channel, inside_m, POST_ACTIVATION)
        tl.store(at, u.to(activation.dtype.element_ty), mask=inside)
    if histogram is not None:
        count_bins(histogram, v, inside, like_rows(channel, len(v.shape)))
    if candidates is not None:
        place = sample * positions + position
        list_candidates(candidates, v, inside, channel, inside_m, place, LARGEST)
    return reduce_tile(v, exists, len(v.shape) - 1)


@triton.jit
def list_candidates(candidates, v, inside, channel, inside_m, place, LARGEST: tl.constexpr):
    """Put values that reach the threshold of their channel, and where they lie, on its list.

    Their order on the list is that of the atomic counter, any; a counter beyond the capacity
    tells that the list is not complete.
    """
    threshold, counts, values, places, capacity = candidates
    limit = per_channel(threshold, channel, inside_m, len(v.shape))
    reached = v >= limit if LARGEST else v <= limit
    reached = (reached & inside & (tl.abs(v) < float("inf"))).to(tl.int32)
    AXIS: tl.constexpr = len(v.shape) - 1
    found = tl.sum(reached, AXIS)  # of a row
    if tl.sum(found) > 0:
        # gathered as it is: this keeps triton 3.9 from giving the atomic the layout of the product,
        # which fails to compile
        index = tl.arange(0, v.shape[0])
        if AXIS == 2:
            index = index[:, None] + tl.zeros(found.shape, tl.int32)
        found = tl.gather(found, index, 0)
        row = channel if AXIS == 1 else channel[:, None] + tl.zeros(found.shape, tl.int32)
        first = tl.atomic_add(counts + row, found, mask=found > 0, sem="relaxed")
        first = tl.expand_dims(first, AXIS)
        slot = first + tl.cumsum(reached, AXIS) - reached
        fits = (reached > 0) & (slot < capacity)
        at = like_rows(channel, len(v.shape)).to(tl.int64) * capacity + slot
        tl.store(values + at, v + 0.0, mask=fits)  # -0 becomes 0
        tl.store(places + at, place + tl.zeros(v.shape, tl.int64), mask=fits)


@triton.jit
def new_state(like):
    """sum, sumsq, min, max, argmax, argmin, positive, nonfinite: of nothing."""
    zero = tl.zeros(like.shape, tl.int32)
    none = zero + NO_POSITION
    wide = tl.zeros(like.shape, tl.float64)
    low = tl.full(like.shape, float("inf"), tl.float32)
    return wide, wide, low, -low, none, none, zero, zero


@triton.jit
def reduce_tile(v, inside, AXIS: tl.constexpr):
    """The state of one tile, v float32 reduced along its last axis AXIS where inside.

    argmax and argmin are indices along that axis: the caller turns them into positions, which
    costs registers for every row instead of for every value.
    """
    index = tl.arange(0, v.shape[AXIS])[None, :]
    if AXIS == 2:
        index = tl.expand_dims(index, 0)
    u = tl.where(inside & (tl.abs(v) < float("inf")), v, float("nan"))  # NaN: not to be counted
    high = tl.max(u, AXIS)  # NaN only where nothing is counted
    low = tl.min(u, AXIS)
    huge = tl.maximum(high, -low) > HUGE
    w = tl.where(u == u, u, 0.0) * tl.expand_dims(tl.where(huge, DOWN, 1.0), AXIS)
    up = tl.where(huge, UP, 1.0).to(tl.float64)
    at_high = u == tl.expand_dims(high, AXIS)
    at_low = u == tl.expand_dims(low, AXIS)
    # positive values in the high half, finite ones in the low half: one reduction for both
    counts = tl.sum(tl.where(u > 0.0, 0x10001, tl.where(u == u, 1, 0)), AXIS)
    positions = tl.sum(inside.to(tl.int32), AXIS)  # [1] or [1, 1]
    return (
        tl.sum(w, AXIS).to(tl.float64) * up,
        tl.sum(w * w, AXIS).to(tl.float64) * up * up,
        tl.where(low == low, low, float("inf")),
        tl.where(high == high, high, float("-inf")),
        tl.min(tl.where(at_high, index, NO_POSITION), AXIS),
        tl.min(tl.where(at_low, index, NO_POSITION), AXIS),
        counts >> 16,
        positions - (counts & 0xFFFF),
    )


@triton.jit
def add_tile(state, tile, argmax, argmin):
    """The state with a tile added, whose argmax and argmin are now flat positions."""
    argmax = tl.where(tile[4] == NO_POSITION, NO_POSITION, argmax)
    argmin = tl.where(tile[5] == NO_POSITION, NO_POSITION, argmin)
    tile = (tile[0], tile[1], tile[2], tile[3], argmax, argmin, tile[6], tile[7])
    return merge(state, tile)


@triton.jit
def merge(a, b):
    """Two states as one: the lower position wins ties."""
    total, square, low, high, argmax, argmin, positive, nonfinite = a
    higher = (b[3] > high) | ((b[3] == high) & (b[4] < argmax))
    lower = (b[2] < low) | ((b[2] == low) & (b[5] < argmin))
    return (
        total + b[0],
        square + b[1],
        tl.where(lower, b[2], low),
        tl.where(higher, b[3], high),
        tl.where(higher, b[4], argmax),
        tl.where(lower, b[5], argmin),
        positive + b[6],
        nonfinite + b[7],
    )


@triton.jit
def store_state(fields, offset, state, mask):
    """Write a state to the eight field tensors in their final form."""
    total, square, low, high, argmax, argmin, positive, nonfinite = state
    tl.store(fields[0] + offset, total, mask=mask)
    tl.store(fields[1] + offset, square, mask=mask)
    tl.store(fields[2] + offset, low + 0.0, mask=mask)  # -0 becomes 0
    tl.store(fields[3] + offset, high + 0.0, mask=mask)
    tl.store(
        fields[4] + offset, tl.where(argmax == NO_POSITION, -1, argmax).to(tl.int64), mask=mask
    )
    tl.store(
        fields[5] + offset, tl.where(argmin == NO_POSITION, -1, argmin).to(tl.int64), mask=mask
    )
    tl.store(fields[6] + offset, positive.to(tl.int64), mask=mask)
    tl.store(fields[7] + offset, nonfinite.to(tl.int64), mask=mask)


@triton.jit
def count_bins(histogram, v, inside, channel):
    """Add 1 to the bin of every finite v where inside; channel is broadcast to v."""
    bits = v.to(tl.int32, bitcast=True)
    magnitude = ((bits & 0x7FFFFFFF) >> BIN_SHIFT) - FIRST_BIN + 1
    magnitude = tl.minimum(tl.maximum(magnitude, 0), BINS_PER_SIGN + 1)
    index = ZERO_BIN + tl.where(bits < 0, -magnitude, magnitude)
    ok = inside & (tl.abs(v) < float("inf"))
    one = tl.full(v.shape, 1, tl.int64)
    tl.atomic_add(histogram + channel * BINS + index, one, mask=ok, sem="relaxed")
