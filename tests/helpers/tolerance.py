"""Error bounds derived from dtype and length. Tests use these and loosen nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv import Reduction, conv_reduce

U32 = 2.0**-24  # half a unit in the last place of 1
U64 = 2.0**-53
IN_FLOAT32 = {"cuda": 64, "triton": 1040}  # roundings on the way into a float64 sum: numerics.md


def sum_rounding(backend: str, length: int) -> float:
    """Share of the magnitudes that a backend's sum of `length` values may be off by."""
    few = min(length, IN_FLOAT32.get(backend, 0))
    return 2 * length * U64 + few * U32 / (1 - few * U32)


def exact_value(x, scale=None, shift=None, activation=None) -> Tensor:
    """activation(scale * x + shift) of [N, C, *spatial] in float64, as [N, C, P]."""
    value = x.double().reshape(*x.shape[:2], -1)
    if scale is not None:
        value = value * scale.double()[:, None]
    if shift is not None:
        value = value + shift.double()[:, None]
    return value if activation is None else getattr(F, activation)(value)


def transform_bound(x, scale=None, shift=None, activation=None) -> Tensor:
    """[N, C, P]: how far activation(scale * x + shift) in float32 may be from `exact_value`.

    Product and sum round once each, no activation is steeper than 1.5, and its own error is at
    most 4 units in the last place of its argument or value.
    """
    if scale is None and shift is None and activation in (None, "relu", "relu6"):
        return torch.zeros(*x.shape[:2], x[0, 0].numel(), dtype=torch.float64, device=x.device)
    product = exact_value(x, scale).abs()
    linear = exact_value(x, scale, shift).abs()
    bound = U32 * ((product if scale is not None else 0) + (linear if shift is not None else 0))
    if activation in (None, "relu", "relu6"):
        return bound * (1 + 4 * U32)
    return 1.5 * bound + 8 * U32 * (linear + exact_value(x, scale, shift, activation).abs())


def conv_bound(input, weight, bias=None, scale=None, shift=None, **geometry) -> Tensor:
    """[N, C_out, P]: how far scale * conv + shift may be off, accumulated in float32 in any order.

    gamma(gemm_k + 4) * (|scale| * (|input| * |weight| + |bias|) + |shift|): each of the gemm_k
    products, its additions, and the roundings of bias, scale and shift.
    """
    magnitudes = [None if t is None else t.double().abs() for t in (bias, scale, shift)]
    absolute = conv_reduce(
        input.double().abs(), weight.double().abs(), magnitudes[0], scale=magnitudes[1],
        shift=magnitudes[2], return_activation=True, backend="reference", **geometry,
    ).activation.flatten(2)  # fmt: skip
    n = weight[0].numel() + 4
    return n * U32 / (1 - n * U32) * absolute


def assert_reduces(result: Reduction, value: Tensor, bound: Tensor, backend: str) -> None:
    """Every field fits values [N, C, P] known exactly (float64), each computed within its bound."""
    finite = value.isfinite()
    value = value.where(finite, 0.0)
    bound = bound.where(finite, 0.0)
    length = value.shape[-1]
    rounding = sum_rounding(backend, length)
    error = (result.sum - value.sum(-1)).abs()
    assert (error <= (bound + rounding * (value.abs() + bound)).sum(-1)).all()
    square = (2 * value.abs() + bound) * bound
    error = (result.sumsq - value.square().sum(-1)).abs()
    assert (error <= (square + rounding * (value.square() + square)).sum(-1)).all()
    some = finite.any(-1)
    worst = bound.amax(-1)
    for got, at, sign in ((result.max, result.argmax, 1), (result.min, result.argmin, -1)):
        best = (sign * value).where(finite, -torch.inf).amax(-1)
        error = (sign * got.double() - best).where(some, 0.0).abs()
        assert (error <= worst).all()
        there = (sign * value).gather(-1, at.clamp(0)[..., None])[..., 0]
        assert ((best - there).where(some, 0.0) <= 2 * worst).all()  # exact where this separates
        assert torch.equal(at >= 0, some)
        assert (got[~some] == -sign * torch.inf).all()
    unsure = (finite & (value.abs() <= bound) & (bound > 0)).sum(-1)
    assert ((result.positive - (value > 0).sum(-1)).abs() <= unsure).all()
    assert torch.equal(result.nonfinite, (~finite).sum(-1))
    assert result.count == length
