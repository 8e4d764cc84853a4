from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="triton is not installed")

from helpers.tolerance import conv_bound

from fastconv import channel_reduce, conv_reduce
from fastconv.backends.triton import KERNELS
from fastconv.reduction import ACTIVATIONS, PostOps

EXACT = ("min", "max", "argmax", "argmin", "positive", "nonfinite", "histogram")
# input shape, C_out, kernel, stride, padding, dilation, groups, channels_last
CASES = {
    "1x1": ((2, 9, 7, 9), 17, (1, 1), 1, 0, 1, 1, False),
    "3x3": ((2, 17, 9, 11), 19, (3, 3), 1, 1, 1, 1, False),
    "3x3_last": ((2, 17, 9, 11), 19, (3, 3), 1, 1, 1, 1, True),
    "stem": ((1, 3, 21, 23), 16, (7, 7), 2, 3, 1, 1, False),
    "dilated": ((1, 8, 13, 11), 5, (3, 5), (2, 1), (3, 2), (2, 1), 1, False),
    "padding_beyond_kernel": ((1, 1, 3, 3), 3, (2, 2), 1, 3, 1, 1, False),
    "1d": ((2, 5, 71), 7, (9,), 2, 4, 1, 1, False),
    "3d": ((1, 4, 5, 6, 7), 6, (3, 2, 3), (1, 2, 1), 1, 1, 1, False),
    "groups": ((2, 34, 5, 6), 32, (3, 3), 1, 1, 1, 2, False),
    "small_groups": ((2, 12, 7, 6), 9, (3, 3), 1, 1, 1, 3, False),
    "depthwise": ((2, 9, 8, 9), 9, (3, 3), 2, 1, 1, 9, False),
    "depthwise_last": ((2, 9, 8, 9), 18, (5, 3), 1, (2, 1), 1, 9, True),
    "depthwise_3d": ((1, 3, 4, 5, 6), 3, (3, 3, 3), 1, 1, 1, 3, False),
}


def inputs(case: str, dtype: torch.dtype, device: str, *, exact: bool = False):
    """Arguments of conv_reduce; exact: small quantised values, so that no order of sums rounds."""
    shape, c_out, kernel, stride, padding, dilation, groups, last = CASES[case]
    generator = torch.Generator().manual_seed(len(case))

    def draw(*size):
        if exact:
            return (torch.randint(-3, 4, size, generator=generator) / 2).to(device, dtype)
        return torch.randn(size, generator=generator).to(device, dtype)

    x, weight, bias = draw(*shape), draw(c_out, shape[1] // groups, *kernel), draw(c_out)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x, weight, bias, stride, padding, dilation, groups


def float64_conv(x, weight, bias, *rest) -> torch.Tensor:
    conv = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
    return conv(x.double(), weight.double(), None if bias is None else bias.double(), *rest)


DTYPES = [*((case, torch.bfloat16) for case in CASES)]
DTYPES += [(case, torch.float16) for case in ("3x3_last", "stem", "groups", "small_groups")]


@pytest.mark.parametrize(("case", "dtype"), DTYPES)
def test_equals_float64_on_exact_values(case, dtype, device):
    arguments = inputs(case, dtype, device, exact=True)
    channels = arguments[1].shape[0]
    affine = {
        "scale": torch.arange(channels, device=device) % 3 - 1.0,
        "shift": torch.arange(channels, device=device) % 5 / 4,
        "activation": "relu",
    }
    got = conv_reduce(*arguments, **affine, histogram=True, backend="triton")
    value = float64_conv(*arguments).float()
    wanted = channel_reduce(value, **affine, histogram=True, backend="reference")
    for name in ("sum", "sumsq", *EXACT):
        assert torch.equal(getattr(got, name), getattr(wanted, name)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("case", ["3x3", "stem", "depthwise"])
def test_random_values_within_the_bound_of_float64(case, dtype, device):
    x, weight, bias, stride, padding, dilation, groups = inputs(case, dtype, device)
    got = conv_reduce(*inputs(case, dtype, device), return_activation=True, backend="triton")
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    bound = conv_bound(x, weight, bias, **geometry).view_as(got.activation)
    wanted = float64_conv(x, weight, bias, *geometry.values())
    rounding = torch.finfo(dtype).eps * wanted.abs() if dtype != torch.float32 else 0
    assert ((got.activation.double() - wanted).abs() <= bound + rounding).all()
    assert ((got.max - wanted.flatten(2).amax(-1)).abs() <= bound.flatten(2).amax(-1)).all()
    assert ((got.sum - wanted.flatten(2).sum(-1)).abs() <= 2 * bound.flatten(2).sum(-1)).all()


@pytest.mark.parametrize("case", CASES)
def test_reductions_are_those_of_the_activation_written(case, device):
    arguments = inputs(case, torch.float32, device)
    got = conv_reduce(*arguments, histogram=True, return_activation=True, backend="triton")
    wanted = channel_reduce(got.activation, histogram=True, backend="reference")
    for name in EXACT:
        assert torch.equal(getattr(got, name), getattr(wanted, name)), name
    torch.testing.assert_close(got.sum, wanted.sum, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(got.sumsq, wanted.sumsq, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("case", ["3x3_last", "stem", "depthwise", "tma"])
def test_the_network_may_go_on_with_another_value(case, device):
    """What is reduced is the convolution; what is written, its norm and activation."""
    if case == "tma":
        x, weight = torch.randn(3, 8, 7, 9, device=device), torch.randn(5, 8, 3, 3, device=device)
        x, geometry = x.contiguous(memory_format=torch.channels_last), ([2, 2], [1] * 4, [1, 1], 1)
        bias = torch.randn(5, device=device)
    else:
        x, weight, bias, stride, padding, dilation, groups = inputs(case, torch.float32, device)
        geometry = ([stride] * 2, [padding] * 4, [dilation] * 2, groups)
    channels = len(weight)
    scale = torch.linspace(-1, 2, channels, device=device)
    shift = torch.linspace(1, -1, channels, device=device)
    for post_ops in (
        PostOps(scale, shift, "gelu"),
        PostOps(scale, shift),
        PostOps(activation="relu"),
    ):
        run = KERNELS["conv_reduce"].run
        given = (x, weight, bias, *geometry, None, None, None, None, True)
        *plain, value = run(*given)
        *got, written = run(*given, post_ops=post_ops)
        assert all(torch.equal(a, b) for a, b in zip(got, plain, strict=True))
        wanted = value.double()
        if post_ops.scale is not None:
            wanted = wanted * scale.double()[:, None, None] + shift.double()[:, None, None]
        if post_ops.activation is not None:
            wanted = getattr(F, post_ops.activation)(wanted)
        torch.testing.assert_close(written.double(), wanted, rtol=2e-6, atol=2e-6)
        assert not torch.equal(written, value)


@pytest.mark.parametrize("case", ["1x1", "depthwise"])
def test_bits_do_not_depend_on_the_batch(case, device):
    x, *rest = inputs(case, torch.bfloat16, device)
    x = torch.randn(7, x.shape[1], 7, 11, device=device).bfloat16()
    whole = conv_reduce(x, *rest, histogram=True, backend="triton")
    parts = [conv_reduce(p, *rest, histogram=True, backend="triton") for p in x.split([1, 3, 3])]
    for name in ("sum", "sumsq", *EXACT[:-1]):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(getattr(whole, name), joined), name
    assert torch.equal(whole.histogram, sum(part.histogram for part in parts))


@pytest.mark.parametrize("case", ["3x3", "small_groups"])
def test_nonfinite_values_are_counted_and_left_out(case, device):
    x, *rest = inputs(case, torch.float32, device, exact=True)
    x[0, 0, 0, 0] = torch.nan
    x[1, 1, 4, 4] = torch.inf
    x[1, 2, 2, 2] = -torch.inf
    got = conv_reduce(x, *rest, histogram=True, backend="triton")
    wanted = channel_reduce(float64_conv(x, *rest).float(), histogram=True, backend="reference")
    for name in ("sum", "sumsq", *EXACT):
        assert torch.equal(getattr(got, name), getattr(wanted, name)), name


def test_sums_of_huge_values(device):
    x = torch.tensor([1.0, -2.0, 3.0, 0.5], device=device).mul(1e30).view(1, 1, 4)
    got = conv_reduce(x, torch.tensor([[[1.0]], [[1e-30]]], device=device), backend="triton")
    torch.testing.assert_close(got.sumsq[0, 0].item(), 14.25e60, rtol=1e-6, atol=0)
    torch.testing.assert_close(got.sum[0].cpu().double(), torch.tensor([2.5e30, 2.5]).double())
    assert got.positive.tolist() == [[3, 3]]


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_activations(activation, device):
    x = torch.linspace(-12, 12, 97, device=device).view(1, 1, -1)
    x = torch.cat([x, x * 1e-4, x * 1e-2], -1)
    one = torch.ones(1, 1, 1, device=device)
    got = conv_reduce(x, one, activation=activation, return_activation=True, backend="triton")
    wanted = x.double() if activation is None else getattr(F, activation)(x.double())
    torch.testing.assert_close(got.activation.double(), wanted, rtol=2e-6, atol=1e-7)


def test_empty_batch(device):
    x, weight = torch.empty(0, 3, 5, 5, device=device), torch.ones(4, 3, 3, 3, device=device)
    got = conv_reduce(x, weight, return_activation=True, backend="triton")
    assert got.sum.shape == (0, 4)
    assert got.activation.shape == (0, 4, 3, 3)


def test_chosen_only_by_name_on_the_cpu():
    from fastconv import dispatch

    assert all("triton" not in names for names in dispatch.backends("cpu").values())
