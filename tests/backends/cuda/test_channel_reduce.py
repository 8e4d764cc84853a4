"""The CUDA reductions of an activation against float64, over odd sizes, layouts and values."""

from __future__ import annotations

import pytest
import torch
from helpers.backend_cases import FIELDS, layouts
from helpers.tolerance import exact_value, transform_bound

from fastconv.backends import reference
from fastconv.histogram import BINS
from fastconv.reduction import ACTIVATIONS, Reduction

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CHANNELS = (1, 3, 7, 8, 9, 15, 16, 17, 33)
EXACT = FIELDS[2:]
WANTED = reference.KERNELS["channel_reduce"].run


def quantised(shape, dtype=torch.float32, seed=0):
    """Few distinct values: ties everywhere, and no order of a sum rounds."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-9, 10, shape, generator=generator) / 4).to(dtype)


def reduced(kernel, x, scale=None, shift=None, activation=None, *, histogram=True, lists=()):
    counts = torch.zeros(x.shape[1], BINS, dtype=torch.int64, device=x.device)
    counts = counts if histogram else None
    fields = kernel(x, scale, shift, activation, counts, *lists)
    return Reduction(*fields, x.shape[2:].numel(), counts)


def assert_equal(got, wanted, fields=FIELDS):
    for name in fields:
        assert torch.equal(getattr(got, name), getattr(wanted, name)), name
    if got.histogram is not None and wanted.histogram is not None:
        assert torch.equal(got.histogram, wanted.histogram)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_equals_the_reference_where_no_sum_rounds(channels, dtype, kernels, device):
    run = kernels["channel_reduce"].run
    for size in ((), (1,), (7, 7), (5, 13), (33, 17)):
        x = quantised((2, channels, *size), dtype, channels).to(device)
        for name, laid in layouts(x):
            wanted = reduced(WANTED, laid)
            assert_equal(reduced(run, laid, histogram=name == "strided"), wanted)


@pytest.mark.parametrize("shape", [(1, 2, 8192), (2, 1, 9001), (1, 9, 50, 41), (1, 3, 4, 47, 47)])
def test_rows_of_several_segments(shape, kernels, device):
    x = quantised(shape, torch.bfloat16).to(device)
    for _, laid in layouts(x):
        for histogram in (False, True):
            got = reduced(kernels["channel_reduce"].run, laid, histogram=histogram)
            assert_equal(got, reduced(WANTED, laid))


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_scale_shift_and_activation(activation, kernels, device):
    generator = torch.Generator().manual_seed(3)
    x = (torch.randn(2, 17, 9, 9, generator=generator) * 3).to(device)
    scale, shift = (torch.randn(17, generator=generator).to(device) for _ in range(2))
    every = ((None, None), (scale, None), (None, shift), (scale.double(), shift))
    for affine in every if activation in (None, "gelu") else every[-1:]:
        value = exact_value(x, *affine, activation)
        bound = transform_bound(x, *affine, activation)
        for _, laid in layouts(x):
            got = reduced(kernels["channel_reduce"].run, laid, *affine, activation)
            # at most 32 values go into a float32 sum
            rounding = (32 * 2.0**-24 * value.abs() + bound).sum(-1)
            assert ((got.sum - value.sum(-1)).abs() <= rounding).all()
            assert ((got.max - value.amax(-1)).abs() <= bound.amax(-1)).all()
            assert ((got.min - value.amin(-1)).abs() <= bound.amax(-1)).all()
            there = value.gather(-1, got.argmax[..., None])[..., 0]
            assert (value.amax(-1) - there <= 2 * bound.amax(-1)).all()
            assert (got.histogram.sum(-1) == 2 * 81).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_random_values(dtype, kernels, device):
    x = torch.randn(3, 9, 45, 31, generator=torch.Generator().manual_seed(1)).to(dtype).to(device)
    for _, laid in layouts(x):
        got = reduced(kernels["channel_reduce"].run, laid)
        value = exact_value(x)
        magnitude = value.abs().sum(-1)
        assert ((got.sum - value.sum(-1)).abs() <= 32 * 2.0**-24 * magnitude).all()
        squares = value.square().sum(-1)
        assert ((got.sumsq - squares).abs() <= 33 * 2.0**-24 * squares).all()
        assert_equal(got, reduced(WANTED, x), EXACT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_non_finite_values_are_counted_and_left_out(dtype, activation, kernels, device):
    for shape in ((2, 17, 49), (1, 3, 2500), (2, 5, 1), (4, 20)):
        x = quantised(shape, dtype)
        generator = torch.Generator().manual_seed(5)
        kind = torch.randint(0, 9, shape, generator=generator)
        for number, bad in enumerate((torch.nan, torch.inf, -torch.inf)):
            x[kind == number] = bad
        x[0, 0] = torch.nan  # nothing is left
        for _, laid in layouts(x.to(device)):
            got = reduced(kernels["channel_reduce"].run, laid, None, None, activation)
            assert_equal(got, reduced(WANTED, laid, None, None, activation))


def test_huge_tiny_and_signed_zeros(kernels, device):
    x = torch.tensor([3e38, -3e38, 2.0**-149, -0.0, 0.0, 1e30, -(2.0**60)]).repeat(2, 3, 9)
    x[:, 1] = torch.tensor([-0.0, 0.0]).repeat(32)[:63]
    for _, laid in layouts(x.to(device)):
        got, wanted = reduced(kernels["channel_reduce"].run, laid), reduced(WANTED, laid)
        assert_equal(got, wanted, EXACT)
        torch.testing.assert_close(got.sumsq, wanted.sumsq, rtol=1e-12, atol=0)
        torch.testing.assert_close(got.sum, wanted.sum, rtol=1e-9, atol=0)
        assert (got.argmax[:, 1] == 0).all() and (got.argmin[:, 1] == 0).all()


@pytest.mark.parametrize("positions", [1, 2, 7, 8, 9, 63, 65, 512, 513, 1025, 5000])
def test_trap_13_ties_go_to_the_first_position(positions, kernels, device):
    x = torch.zeros(2, 3, positions, device=device)
    first = positions // 3
    x[:, :, first:] = 7.0
    low = min(positions - 1, first + 1)
    x[1, :, low:] = -7.0
    for _, laid in layouts(x):
        got = reduced(kernels["channel_reduce"].run, laid, histogram=False)
        assert (got.argmax[0] == first).all()
        assert (got.argmin[0] == 0).all()
        assert (got.argmin[1] == low).all()


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("histogram", [False, True])
def test_bits_do_not_depend_on_the_batch(size, histogram, kernels, device):
    x = torch.randn(13, 5, 7, 7, generator=torch.Generator().manual_seed(2)).bfloat16().to(device)
    x[5, 2, 3] = torch.nan
    run = kernels["channel_reduce"].run
    for _, laid in layouts(x):
        whole = reduced(run, laid, histogram=histogram)
        parts = [reduced(run, part, histogram=histogram) for part in laid.split(size)]
        joined = [torch.cat(field) for field in zip(*(part[:8] for part in parts), strict=True)]
        assert_equal(Reduction(*joined, 49), whole)
        if histogram:
            assert torch.equal(sum(part.histogram for part in parts), whole.histogram)


def test_addresses_of_any_alignment_give_the_same_bits(kernels, device):
    """The share of a thread does not depend on how a row is read."""
    x = torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(4)).half().to(device)
    run = kernels["channel_reduce"].run
    for last in (False, True):
        wanted = None
        for offset in (0, 1, 2, 4):  # of 2, 4 and 8 bytes
            memory = torch.zeros(offset + x.numel(), dtype=x.dtype, device=device)[offset:]
            laid = memory.view(2, 40, 8).transpose(1, 2) if last else memory.view_as(x)
            laid.copy_(x)
            got = reduced(run, laid)
            assert_equal(got, wanted or got)
            wanted = got


def test_no_samples(kernels, device):
    got = reduced(kernels["channel_reduce"].run, torch.zeros(0, 3, 5, device=device))
    assert got.sum.shape == (0, 3)
    assert got.histogram.sum() == 0
