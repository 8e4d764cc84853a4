"""channel_normalize: every backend against the formulas in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.backend_cases import every_backend, layouts
from helpers.tolerance import U32

from fastconv import channel_normalize
from fastconv.errors import InputError

both_backends = every_backend("channel_normalize")
HALF_ULP = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SHAPES = [(3, 1, 1), (2, 7, 15), (2, 17, 5, 9), (1, 3, 2, 3, 4), (4, 9)]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def arguments(mode, channels):
    a, b = random(channels, seed=1), random(channels, seed=2)
    return {
        "batchnorm": {"scale": a, "shift": b},
        "zscore": {"mean": a, "var": b.abs()},
        "minmax": {"min": a, "max": a + b.abs()},
    }.get(mode, {})


def formula(x, mode, **statistics):
    """The table of the docstring, and the magnitude that rounding errors scale with."""
    x = x.double()
    shape = (1, -1) + (1,) * (x.ndim - 2)
    per_channel = {name: value.double().view(shape) for name, value in statistics.items()}
    flat = x.reshape(*x.shape[:2], -1)
    if mode == "batchnorm":
        scaled = per_channel["scale"] * x
        return scaled + per_channel["shift"], scaled.abs() + per_channel["shift"].abs()
    if mode in ("zscore", "minmax"):
        low = per_channel["mean" if mode == "zscore" else "min"]
        width = (per_channel["var"] + 1e-5).sqrt() if mode == "zscore" else per_channel["max"] - low
        return (x - low) / width, (x.abs() + low.abs()) / width
    if mode == "instance":
        center = flat.mean(-1, keepdim=True)
        spread = ((flat - center).square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return ((flat - center) / spread).view_as(x), (flat.abs() / spread).view_as(x)
    norm = (
        flat.abs().sum(-1, keepdim=True)
        if mode == "l1"
        else flat.square().sum(-1, keepdim=True).sqrt()
    )
    value = (flat / norm.clamp_min(1e-5)).view_as(x)
    return value, value.abs()


@both_backends
@pytest.mark.parametrize("dtype", HALF_ULP, ids=str)
@pytest.mark.parametrize("mode", ["batchnorm", "zscore", "minmax", "instance", "l1", "l2"])
def test_agrees_with_the_formula(mode, dtype, device, backend):
    for shape in SHAPES:
        x = random(*shape).to(dtype).to(device)
        given = {name: value.to(device) for name, value in arguments(mode, shape[1]).items()}
        want, magnitude = formula(x, mode, **given)
        bound = 4 * U32 * magnitude + HALF_ULP[dtype] * (want.abs() + 4 * U32 * magnitude) + 1e-7
        for _, laid in layouts(x):
            got = channel_normalize(laid, mode, **given, backend=backend)
            assert got.dtype == dtype
            assert got.shape == laid.shape
            assert ((got.double() - want).abs() <= bound).all()


@both_backends
def test_memory_format_is_kept(device, backend):
    x = random(2, 3, 4, 5).to(device).contiguous(memory_format=torch.channels_last)
    assert channel_normalize(x, "l2", backend=backend).is_contiguous(
        memory_format=torch.channels_last
    )


@both_backends
def test_minmax_of_a_constant_channel_is_zero(device, backend):
    x = torch.full((2, 1, 4), 3.0, device=device)
    low = torch.full((1,), 3.0, device=device)
    assert not channel_normalize(x, "minmax", min=low, max=low, backend=backend).any()


@both_backends
def test_instance_is_that_of_torch(device, backend):
    x = random(3, 5, 6, 7).to(device)
    got = channel_normalize(x, "instance", eps=1e-3, backend=backend)
    torch.testing.assert_close(got, F.instance_norm(x, eps=1e-3))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((torch.zeros(3), "l1"), r"\[N, C, \*spatial\] with 0 to 3 spatial dimensions, got \[3\]"),
        ((torch.zeros(2, 3).int(), "l1"), "x must be float32, .* got torch.int32"),
        ((torch.zeros(2, 3, 4), "layer"), "mode must be one of batchnorm, .*, got 'layer'"),
        ((torch.zeros(2, 3, 4), "zscore"), "mode 'zscore' takes mean and var; check mean"),
    ],
)
def test_bad_input(args, message):
    with pytest.raises(InputError, match=message):
        channel_normalize(*args)


def test_superfluous_or_misshapen_statistics():
    x, three = torch.zeros(2, 3, 4), torch.ones(3)
    with pytest.raises(InputError, match="mode 'l2' takes no statistics; check scale"):
        channel_normalize(x, "l2", scale=three)
    with pytest.raises(InputError, match=r"scale must be \[3\], got \[4\]"):
        channel_normalize(x, "batchnorm", scale=torch.ones(4), shift=three)
