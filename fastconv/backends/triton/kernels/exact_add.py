from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exact_add_kernel(
    values,  # [N, C] float64
    sums,  # [C, LIMBS] int64
    CHANNELS,
    COUNT,  # N * C
    LIMBS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Limb i counts 2^(32 i - 1074); integers: atomic additions may come in any order."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < COUNT
    bits = tl.load(values + index, mask=inside, other=0.0).to(tl.int64, bitcast=True)
    exponent = (bits >> 52) & 0x7FF
    mantissa = (bits & 0xFFFFFFFFFFFFF) | tl.where(exponent > 0, 1 << 52, 0)
    sign = tl.where(bits < 0, -1, 1)
    offset = tl.maximum(exponent - 1, 0)  # of the lowest mantissa bit above 2^-1074
    shift = offset & 31
    low = (mantissa & 0xFFFFFFFF) << shift  # 32 and 21 bits: no shift overflows
    high = (mantissa >> 32) << shift
    at = sums + (index % CHANNELS) * LIMBS + (offset >> 5)
    inside = inside & (mantissa != 0)
    middle = (low >> 32) + (high & 0xFFFFFFFF)  # at most 33 bits
    tl.atomic_add(at, sign * (low & 0xFFFFFFFF), mask=inside, sem="relaxed")
    tl.atomic_add(at + 1, sign * middle, mask=inside, sem="relaxed")
    tl.atomic_add(at + 2, sign * (high >> 32), mask=inside, sem="relaxed")
