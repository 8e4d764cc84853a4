"""The bins of every histogram: log-linear, cut from the bits of a float32.

A bin is the float32 bit pattern without its low bits: every octave [2^e, 2^(e+1)) is cut into 32
equal bins. Magnitudes below 2^-20 are zero, from 2^20 on overflow.
"""

from __future__ import annotations

import numpy as np

BIN_SHIFT = 18
FIRST_EXPONENT, LAST_EXPONENT = -20, 20
BINS_PER_SIGN = (LAST_EXPONENT - FIRST_EXPONENT) * 32
BINS = 2 * (BINS_PER_SIGN + 1) + 1  # negative overflow and bins, zero, positive bins and overflow
ZERO_BIN = BINS_PER_SIGN + 1


def bin_edges() -> np.ndarray:
    """[bins + 1] float64, ascending; the first is -inf, the last +inf."""
    octaves = np.exp2(np.arange(FIRST_EXPONENT, LAST_EXPONENT, dtype=np.float64))
    steps = 1 + np.arange(32) / 32
    positive = np.append((octaves[:, None] * steps).ravel(), [2.0**LAST_EXPONENT, np.inf])
    return np.concatenate([-positive[::-1], positive])
