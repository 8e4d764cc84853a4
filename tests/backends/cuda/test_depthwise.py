"""The CUDA depthwise convolutions against the reference, over odd sizes and paddings."""

from __future__ import annotations

import pytest
import torch
from helpers.backend_cases import FIELDS, layouts
from helpers.tolerance import conv_bound

from fastconv.backends import reference
from fastconv.histogram import BINS
from fastconv.reduction import PostOps

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ALL, NOTHING = True, False  # whether the activation is written
WANTED = reference.KERNELS["conv_reduce"].run

# samples, size, kernel, stride, padding before and after of each dimension
CASES = {
    "3x3": (2, (9, 11), (3, 3), (1, 1), (1, 1, 1, 1)),
    "3x3_stride": (1, (14, 9), (3, 3), (2, 2), (1, 1, 1, 1)),
    "5x5_unequal": (1, (12, 9), (5, 5), (1, 2), (2, 2, 2, 0)),
    "7x7": (1, (11, 19), (7, 7), (1, 1), (3, 3, 3, 3)),
    "7x7_segments": (1, (41, 33), (7, 7), (1, 1), (3, 3, 3, 3)),
    "5x3": (2, (6, 8), (5, 3), (2, 1), (0, 0, 0, 0)),
    "wide_padding": (1, (3, 4), (1, 7), (1, 1), (0, 0, 9, 9)),
    "1d": (3, (41,), (5,), (1,), (2, 2)),
    "1d_stride": (2, (300,), (3,), (2,), (0, 1)),
}
CHANNELS = {"3x3": (1 + 1, 3, 7, 8, 9, 15, 16, 17, 33)}  # the others: 5 and 32


def problem(case, channels, dtype, device, seed=0):
    """Quantised: products and sums are exact."""
    n, size, kernel, stride, padding = CASES[case]
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randint(-3, 4, shape, generator=generator) / 2

    x, weight, bias = draw(n, channels, *size), draw(channels, 1, *kernel), draw(channels)
    x, weight, bias = (t.to(dtype).to(device) for t in (x, weight, bias))
    geometry = (list(stride), list(padding), [1] * len(size), channels)
    affine = tuple(draw(channels).to(device) for _ in range(2))
    return x, (weight, bias, *geometry), affine


def counts_for(x):
    return torch.zeros(x.shape[1], BINS, dtype=torch.int64, device=x.device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference_where_no_sum_rounds(case, dtype, kernels, device):
    for channels in CHANNELS.get(case, (5, 32)):
        x, arguments, affine = problem(case, channels, dtype, device)
        for name, laid in layouts(x):
            assert kernels["conv_reduce"].supports(laid, *arguments) is None
            counts = counts_for(x)
            given = (laid, *arguments, *affine, "relu6")
            wanted = WANTED(*given, counts, ALL)
            mine = counts_for(x) if name != "contiguous" else None
            got = kernels["conv_reduce"].run(*given, mine, name != "strided")
            for field, a, b in zip(FIELDS, got, wanted, strict=False):
                assert torch.equal(a, b), field
            assert mine is None or torch.equal(mine, counts)
            if name != "strided":
                assert torch.equal(got[8], wanted[8])


@pytest.mark.parametrize("activation", [None, "gelu", "silu"])
def test_within_the_bound_of_float32_products(activation, kernels, device):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, 9, 15, 13, generator=generator).to(device)
    weight = torch.randn(9, 1, 5, 5, generator=generator).to(device)
    given = ([1, 1], [2, 2, 2, 2], [1, 1], 9, None, None, activation, None, ALL)
    bound = 1.5 * conv_bound(x, weight, padding=2, groups=9) + 1e-6
    wanted = WANTED(x.double(), weight.double(), None, *given)
    for _, laid in layouts(x):
        got = kernels["conv_reduce"].run(laid, weight, None, *given)
        error = (got[8].double() - wanted[8]).abs().flatten(2)
        assert (error <= bound).all()
        value = got[8].double().flatten(2)
        assert ((got[0] - value.sum(-1)).abs() <= 64 * 2.0**-24 * value.abs().sum(-1)).all()
        assert torch.equal(got[3], value.amax(-1).float())
        assert torch.equal(value.gather(-1, got[4][..., None])[..., 0], value.amax(-1))


def test_the_network_goes_on_with_another_value(kernels, device):
    x, arguments, _ = problem("3x3", 9, torch.bfloat16, device)
    scale, shift = torch.full((9,), 0.5, device=device), torch.ones(9, device=device)
    given = (x, *arguments, None, None, None, None, ALL)
    value = WANTED(*given)[8].float()
    for _, laid in layouts(x):
        got = kernels["conv_reduce"].run(laid, *given[1:], post_ops=PostOps(scale, shift, "relu"))
        assert torch.equal(got[8].float(), (value * 0.5 + 1).relu())
        assert torch.equal(got[3], value.flatten(2).amax(-1))


def test_nan_and_huge_values(kernels, device):
    x, (weight, _, *geometry), _ = problem("7x7", 6, torch.float32, device)
    arguments = (weight, None, *geometry)  # a bias would be lost beside the huge values, or not
    x[0, 0, 4, 4] = torch.nan
    x[0, 1, 0, 0] = torch.inf
    x[0, 2] *= 2.0**100  # exact, but its square is no float32
    rest = (None, None, None)
    for _, laid in layouts(x):
        mine, counts = counts_for(x), counts_for(x)
        got = kernels["conv_reduce"].run(laid, *arguments, *rest, mine, NOTHING)
        wanted = WANTED(laid, *arguments, *rest, counts, NOTHING)
        for field, a, b in zip(FIELDS[2:], got[2:], wanted[2:], strict=False):
            assert torch.equal(a, b), field
        for a, b in zip(got[:2], wanted[:2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        assert torch.equal(mine, counts)


def test_bits_do_not_depend_on_the_batch(kernels, device):
    x = torch.randn(5, 6, 9, 10, generator=torch.Generator().manual_seed(2)).to(device)
    weight = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(3)).to(device)
    rest = (None, [1, 1], [1, 1, 1, 1], [1, 1], 6, None, None, "silu", None, NOTHING)
    run = kernels["conv_reduce"].run
    for _, laid in layouts(x):
        whole = run(laid, weight, *rest)
        parts = [run(part, weight, *rest) for part in laid.split(2)]
        for field, *pieces in zip(whole[:8], *(part[:8] for part in parts), strict=True):
            assert torch.equal(field, torch.cat(pieces))
    none = run(x[:0], weight, *rest)
    assert none[0].shape == (0, 6)


X = torch.zeros(1, 4, 9, 9)


@pytest.mark.parametrize(
    ("shape", "change", "reason"),
    [
        ((4, 4, 3, 3), {"groups": 1}, "not depthwise"),
        ((4, 2, 3, 3), {"groups": 2}, "not depthwise"),
        ((8, 1, 3, 3), {}, "not depthwise"),
        ((4, 1, 3, 4), {}, "a window of [3, 4]; there are kernels for rows of 3, 5 and 7"),
        ((4, 1, 3, 3), {"stride": [1, 3]}, "strides of 1 and 2"),
        ((4, 1, 3, 3), {"dilation": [2, 1]}, "dilation"),
        ((4, 1, 3, 3, 3), {}, "three spatial dimensions"),
        ((4, 1, 3, 3), {"x": X.double()}, "not torch.float64"),
    ],
)
def test_what_it_does_not_take_is_said(shape, change, reason, kernels):
    given = {
        "x": X, "weight": torch.zeros(shape), "bias": None, "stride": [1, 1],
        "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 4, **change,
    }  # fmt: skip
    assert reason in kernels["conv_reduce"].supports(*given.values())
