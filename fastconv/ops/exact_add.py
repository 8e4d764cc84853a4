"""Add float64 values into exact fixed-point sums (private: not one of the public ops)."""

from __future__ import annotations

from torch import Tensor

from fastconv import dispatch


def exact_add(sums: Tensor, values: Tensor) -> None:
    """Add finite values [N, C] float64 into sums [C, limbs]; limb i counts 2^(32 i - 1074)."""
    dispatch.select("exact_add", "auto", values.device, sums, values)(sums, values)
