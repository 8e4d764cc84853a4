"""channel_reduce: every backend against float64, and the promises about bits."""

from __future__ import annotations

import importlib
from functools import partial

import numpy as np
import pytest
import torch
from helpers.backend_cases import (
    assert_same_bits,
    every_backend,
    every_isa,
    layouts,
    needs_native,
    threads,
)
from helpers.tolerance import assert_reduces, exact_value, transform_bound
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import channel_reduce, histogram_edges
from fastconv.errors import InputError
from fastconv.histogram import BINS
from fastconv.reduction import ACTIVATIONS, PostOps

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = [
    (3, 1, 1), (2, 3, 2), (2, 7, 15), (1, 8, 16), (2, 9, 17), (3, 15, 63), (2, 16, 65), (2, 17, 49),
    (1, 33, 196), (2, 3, 3136), (2, 5, 7, 7), (1, 70, 5, 13), (1, 4, 2, 3, 5), (5, 19),
    (1, 2, 1, 40),
]  # fmt: skip
both_backends = every_backend("channel_reduce")


def random(*shape, dtype=torch.float32, seed=0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)


def affine(channels, seed=1):
    return {"scale": random(channels, seed=seed), "shift": random(channels, seed=seed + 1)}


@both_backends
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_float64(shape, dtype, device, backend):
    x = random(*shape, dtype=dtype).to(device)
    for _, laid in layouts(x):
        result = channel_reduce(laid, backend=backend)
        assert_reduces(result, exact_value(x), transform_bound(x), backend)


@both_backends
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_scale_shift_and_activation(activation, device, backend):
    x = random(2, 17, 9, 9).to(device)
    for kwargs in ({}, affine(17), {"scale": affine(17)["scale"]}, {"shift": affine(17)["shift"]}):
        kwargs = {name: value.to(device) for name, value in kwargs.items()}
        for _, laid in layouts(x):
            result = channel_reduce(laid, activation=activation, backend=backend, **kwargs)
            value = exact_value(x, **kwargs, activation=activation)
            assert_reduces(
                result, value, transform_bound(x, **kwargs, activation=activation), backend
            )


@both_backends
def test_float64_scale_and_shift_are_taken_as_float32(device, backend):
    x = random(2, 5, 40).to(device)
    kwargs = {name: value.double().to(device) for name, value in affine(5).items()}
    result = channel_reduce(x, backend=backend, **kwargs)
    assert_reduces(result, exact_value(x, **kwargs), transform_bound(x, **kwargs), backend)


@needs_native
@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instruction_set_gives_the_same_bits(dtype, isa):
    from fastconv.backends import cpu

    for shape in [(2, 17, 63), (1, 3, 3136), (2, 33, 5, 13), (3, 19), (1, 1, 1025)]:
        x = random(*shape, dtype=dtype)
        x.view(-1)[3] = torch.nan
        for _, laid in layouts(x):
            for activation in (None, "gelu", "silu", "tanh", "elu", "sigmoid", "hardswish"):
                kwargs = {} if activation is None else affine(shape[1])
                kwargs |= {"activation": activation, "histogram": True, "backend": "cpu"}
                cpu.set_isa(isa)
                here = channel_reduce(laid, **kwargs)
                cpu.set_isa("scalar")
                assert_same_bits(here, channel_reduce(laid, **kwargs))


@both_backends
@pytest.mark.parametrize("size", [1, 7, 64])
def test_bits_do_not_depend_on_the_batch(size, device, backend):
    x = random(64, 5, 13, 13).to(device)
    x[5, 2] = torch.nan
    activation = "relu" if backend == "reference" else "silu"  # torch's exp rounds by place
    kwargs = {"activation": activation, "backend": backend}
    for _, laid in layouts(x):
        whole = channel_reduce(laid, histogram=True, **kwargs)
        counts = torch.zeros(5, BINS, dtype=torch.int64, device=device)
        parts = [channel_reduce(part, histogram=counts, **kwargs) for part in laid.split(size)]
        joined = [torch.cat(field) for field in zip(*(part[:8] for part in parts), strict=True)]
        sums = 2 if (device, backend) == ("cuda", "reference") else 0  # in an order of torch's
        for got, want in zip(joined[sums:], whole[sums:8], strict=True):
            assert torch.equal(got, want)
        assert torch.equal(counts, whole.histogram)


@needs_native
@pytest.mark.parametrize("shape", [(3, 5, 4000), (9, 40, 23, 23)], ids=str)
def test_bits_do_not_depend_on_the_threads(shape):
    for _, laid in layouts(random(*shape)):
        with threads(1):
            one = channel_reduce(laid, activation="gelu", histogram=True, backend="cpu")
        with threads(2):
            two = channel_reduce(laid, activation="gelu", histogram=True, backend="cpu")
        assert_same_bits(one, two)


@needs_native
@every_isa
@pytest.mark.parametrize("shape", [(2, 17, 9, 9), (3, 33, 5, 13), (1, 5, 3, 1001)], ids=str)
@pytest.mark.parametrize("kind", ["norm", "activation", "both", "nothing"])
def test_what_a_network_goes_on_with_is_written_over(kind, shape, isa):
    post = affine(shape[1], seed=5) if kind in ("norm", "both") else {}
    post |= {"activation": "relu"} if kind in ("activation", "both") else {}
    for _, laid in layouts(random(shape[0] + 2, *shape[1:])):
        laid[1, 2, 0, -1] = torch.nan
        for stage in ({}, {**affine(shape[1]), "activation": "silu"}):
            run = partial(channel_reduce, histogram=True, backend="cpu", **stage)
            wanted, value = run(laid[1:-1]), laid.clone(memory_format=torch.preserve_format)
            assert_same_bits(run(value[1:-1], post_ops=PostOps()), wanted)
            bound = transform_bound(laid, **stage)
            assert_within(value, exact_value(laid, **stage), bound)
            assert torch.equal(value[[0, -1]], laid[[0, -1]])  # the samples around it
            written = laid.clone(memory_format=torch.preserve_format)
            assert_same_bits(run(written[1:-1], post_ops=PostOps(**post)), wanted)
            assert_within(written, exact_value(value, **post), transform_bound(value, **post))
            assert torch.equal(written[[0, -1]], laid[[0, -1]])


def assert_within(values, exact, bound):
    """The samples but the first and the last, [N, C, *spatial] and [N, C, P]."""
    values = values.double().flatten(2)
    assert torch.equal(values[1:-1].isnan(), exact[1:-1].isnan())
    error = (values - exact).abs().nan_to_num()
    assert (error <= bound.nan_to_num())[1:-1].all()


@needs_native
@every_isa
@pytest.mark.parametrize("shape", [(1, 17, 300, 301), (1500, 3, 7, 7)], ids=str)
def test_histograms_count_beyond_16_bits(shape, isa):
    """Values of few bins, so that one has more than 2^16 of them."""
    x = random(*shape).round().clamp(-1, 1)
    for _, laid in layouts(x):
        counts = channel_reduce(laid, histogram=True, backend="cpu").histogram
        for c in (0, shape[1] - 1):
            assert np.array_equal(counts[c].numpy(), numpy_histogram(x[:, c].double().numpy()))


@needs_native
@every_isa
def test_every_result_is_written(isa, monkeypatch):
    """Outputs are poisoned before the kernel runs."""
    module = importlib.import_module("fastconv.backends.cpu.channel_reduce")

    def poisoned(n, c, device):
        wide = (torch.full((n, c), torch.nan, dtype=torch.float64) for _ in range(2))
        narrow = (torch.full((n, c), torch.nan) for _ in range(2))
        return (*wide, *narrow, *(torch.full((n, c), -99) for _ in range(4)))

    for shape in SHAPES:
        x = random(*shape)
        for _, laid in layouts(x):
            clean = channel_reduce(laid, backend="cpu")
            with monkeypatch.context() as patch:
                patch.setattr(module, "empty_fields", poisoned)
                assert_same_bits(clean, channel_reduce(laid, backend="cpu"))


def make_bad(x, share, seed=0):
    generator = torch.Generator().manual_seed(seed)
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf])[
        torch.randint(0, 3, x.shape, generator=generator)
    ]
    return torch.where(torch.rand(x.shape, generator=generator) < share, bad.to(x.dtype), x)


@both_backends
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.001, 0.4, 1.0])
def test_non_finite_values_are_counted_and_left_out(share, dtype, device, backend):
    for shape in [(2, 17, 49), (1, 3, 2500), (2, 5, 1), (4, 20)]:
        x = make_bad(random(*shape, dtype=dtype), share).to(device)
        for _, laid in layouts(x):
            result = channel_reduce(laid, histogram=True, backend=backend)
            assert_reduces(result, exact_value(x), transform_bound(x), backend)
            counted = result.histogram.sum() + result.nonfinite.sum()
            assert counted == x.numel()


@both_backends
def test_trap_6_nan_never_ranks_first(device, backend):
    x = torch.tensor([[[1.0, torch.nan, 3.0, 2.0], [torch.nan] * 4]], device=device)
    result = channel_reduce(x, backend=backend)
    assert result.max.tolist() == [[3.0, -torch.inf]]
    assert result.argmax.tolist() == [[2, -1]]
    assert result.min.tolist() == [[1.0, torch.inf]]
    assert result.argmin.tolist() == [[0, -1]]
    assert result.nonfinite.tolist() == [[1, 4]]
    assert result.sum.tolist() == [[6.0, 0.0]]


@both_backends
@pytest.mark.parametrize("positions", [1, 2, 15, 16, 17, 63, 65, 1024, 1025, 5000])
def test_trap_13_ties_go_to_the_first_position(positions, device, backend):
    x = torch.zeros(2, 17, positions, device=device)
    first = positions // 3
    x[:, :, first:] = 7.0
    low = min(positions - 1, first + 1)
    x[1, :, low:] = -7.0
    for _, laid in layouts(x):
        result = channel_reduce(laid, backend=backend)
        assert (result.argmax[0] == first).all()
        assert (result.argmin[0] == 0).all()
        assert (result.argmin[1] == low).all()


@both_backends
def test_zeros_of_either_sign_are_equal_and_not_positive(device, backend):
    x = torch.tensor([-0.0, 0.0] * 20, device=device).expand(1, 3, 40)
    for _, laid in layouts(x):
        result = channel_reduce(laid, histogram=True, backend=backend)
        assert (result.argmax == 0).all() and (result.argmin == 0).all()
        assert (result.positive == 0).all()
        assert (result.histogram[:, BINS // 2] == 40).all()


@both_backends
def test_denormals_and_huge_values(device, backend):
    tiny, huge = 2.0**-149, 3e38
    x = torch.tensor([tiny, -tiny, huge, -huge, huge, 0.0], device=device).expand(1, 17, 6)
    result = channel_reduce(x, histogram=True, backend=backend)
    want = np.float64(np.float32(huge))
    assert (result.sumsq == 3 * want**2).all()  # beyond float32
    assert (result.sum == want).all()
    assert (result.positive == 3).all()
    assert (result.nonfinite == 0).all()
    assert result.histogram[0, [0, BINS // 2, BINS - 1]].tolist() == [1, 3, 2]


@both_backends
def test_negative_channels_have_a_first_best_position(device, backend):
    x = torch.tensor([[[-3.0, -1.0, -2.0]]], device=device)
    result = channel_reduce(x, backend=backend)
    assert (result.max.item(), result.argmax.item(), result.positive.item()) == (-1.0, 1, 0)


def numpy_histogram(values):
    """Counts per bin: [lower, upper) for positive values, mirrored for negative ones."""
    edges = histogram_edges().numpy()
    positive, _ = np.histogram(values[values >= 0], edges)
    negative, _ = np.histogram(-values[values < 0], edges)
    return positive + negative[::-1]


@both_backends
@pytest.mark.parametrize("dtype", DTYPES)
def test_histogram_is_that_of_its_edges(dtype, device, backend):
    exponents = torch.linspace(-26, 26, 6 * 17 * 101).view(6, 17, 101)
    x = (torch.exp2(exponents) * torch.sign(random(6, 17, 101))).to(dtype)
    edges = histogram_edges()[1:-1].float().to(dtype)
    x.view(-1)[: edges.numel()] = edges  # every edge itself, too
    x = x.to(device)
    for _, laid in layouts(x):
        counts = channel_reduce(laid, histogram=True, backend=backend).histogram.cpu()
        wide = x.double().cpu()
        for c in range(17):
            values = wide[:, c].flatten()
            want = numpy_histogram(values[values.isfinite()].numpy())
            assert np.array_equal(counts[c].numpy(), want)


@both_backends
def test_histogram_adds_into_the_tensor_given(device, backend):
    x = random(3, 4, 50).to(device)
    counts = torch.full((4, BINS), 5, dtype=torch.int64, device=device)
    result = channel_reduce(x, histogram=counts, backend=backend)
    assert result.histogram is counts
    fresh = channel_reduce(x, histogram=True, backend=backend).histogram
    assert torch.equal(counts, fresh + 5)


def test_histogram_edges_ascend_within_three_percent():
    edges = histogram_edges()
    assert edges.shape == (BINS + 1,)
    assert (edges.diff() > 0).all()
    middle = edges[(edges >= 2.0**-20) & (edges <= 2.0**20)]
    assert (middle.diff() / middle[:-1]).max() <= 1 / 32


@both_backends
def test_no_samples(device, backend):
    result = channel_reduce(torch.zeros(0, 3, 5, device=device), histogram=True, backend=backend)
    assert result.sum.shape == (0, 3)
    assert result.histogram.sum() == 0


@both_backends
def test_any_strides(device, backend):
    base = random(4, 6, 10, 12).to(device)
    views = {
        "channel slice": base[:, 1:4],
        "sample step": base[::2],
        "position step": base[..., ::3],
        "reversed roles": base.transpose(1, 2),
        "repeated": base[:, :, :1, :1].expand(4, 6, 5, 7),
        "repeated channel": base[:, :1].expand(4, 9, 10, 12),
        "one column": base[..., 3:4],
        "last channels": base.contiguous(memory_format=torch.channels_last)[:, 2:5],
    }
    for name, view in views.items():
        result = channel_reduce(view, histogram=True, backend=backend)
        assert_reduces(result, exact_value(view), transform_bound(view), backend)
        want = channel_reduce(view.clone(memory_format=torch.contiguous_format), histogram=True)
        assert torch.equal(result.histogram, want.histogram), name


@needs_native
@settings(max_examples=60)
@given(data=st.data())
def test_any_shape_any_ties(data):
    n, c = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 35))
    sizes = st.lists(st.integers(1, 40), max_size=3)
    spatial = data.draw(sizes.filter(lambda s: np.prod(s) < 3000))
    dtype = data.draw(st.sampled_from(DTYPES))
    few = data.draw(st.sampled_from([[0.0, 1.0], [-1.0, 0.0, 2.0], [torch.nan, 1.5, -1.5, 0.0]]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    choice = torch.randint(0, len(few), (n, c, *spatial), generator=generator)
    x = torch.tensor(few)[choice].to(dtype)
    for _, laid in layouts(x):
        got = channel_reduce(laid, histogram=True, backend="cpu")
        assert_same_bits(got, channel_reduce(x, histogram=True, backend="reference"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3)}, r"\[N, C, \*spatial\] with 0 to 3 spatial dimensions, got \[3\]"),
        ({"x": torch.zeros(1, 1, 1, 1, 1, 1)}, "0 to 3 spatial dimensions"),
        ({"x": torch.zeros(2, 3, 4, dtype=torch.int32)}, "x must be float32, .*, got torch.int32"),
        ({"x": torch.zeros(2, 0, 4)}, r"no channels or no positions: \[2, 0, 4\]"),
        ({"x": torch.zeros(2, 3, 0)}, r"no channels or no positions: \[2, 3, 0\]"),
        ({"scale": torch.ones(4)}, r"scale must be \[3\], got \[4\]"),
        ({"shift": torch.ones(3, 1)}, r"shift must be \[3\], got \[3, 1\]"),
        ({"scale": torch.ones(3, device="meta")}, "scale is on meta, the input on cpu"),
        ({"activation": "swish"}, "activation must be None or one of relu, .*, got 'swish'"),
        ({"histogram": torch.zeros(3, 7, dtype=torch.int64)}, r"int64 \[3, 2563\], got .*\[3, 7\]"),
        ({"histogram": torch.zeros(3, BINS)}, "got torch.float32"),
        ({"histogram": torch.zeros(BINS, 3, dtype=torch.int64).T}, "contiguous int64"),
    ],
)
def test_bad_input(change, message):
    arguments = {"x": torch.zeros(2, 3, 4), **change}
    with pytest.raises(InputError, match=message):
        channel_reduce(**arguments)
