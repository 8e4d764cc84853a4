"""The C++ convolution: values, at every instruction set and of odd sizes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.backend_cases import FIELDS, assert_same_bits, every_isa, layouts, needs_native
from helpers.convolutions import CASES, FORMATS, assert_within, make
from torch import nn

from fastconv import conv_reduce
from fastconv.backends.reference.channel_reduce import reduce_positions
from fastconv.ops.conv_reduce import conv_reduce_in_network
from fastconv.reduction import PostOps

pytestmark = needs_native


@every_isa
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_float64(case, isa):
    x, w, kwargs = make(case)
    for _, laid in layouts(x):
        for activation in (None, "relu"):
            result = conv_reduce(laid, w, activation=activation, backend="cpu", **kwargs)
            assert_within(result, x, w, activation, **kwargs)


HALF_CASES = ["stem", "1x1", "groups", "depthwise", "1d", "3d", "late", "late_stride", "1x1_32"]
HALF_CASES += ["1d_32_stride", "3d_32", "groups_32"]


@every_isa
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", HALF_CASES)
def test_half_precision_accumulates_in_float32(case, dtype, isa):
    x, w, kwargs = make(case, dtype)
    for _, laid in layouts(x):
        result = conv_reduce(laid, w, activation="relu", backend="cpu", **kwargs)
        assert_within(result, x, w, "relu", **kwargs)


@every_isa
@pytest.mark.parametrize(
    "activation",
    ["relu6", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "hardswish"],
)
def test_every_activation(activation, isa):
    x, w, kwargs = make("3x3")
    result = conv_reduce(x, w, activation=activation, backend="cpu", **kwargs)
    assert_within(result, x, w, activation, **kwargs)


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_reductions_are_those_of_the_activation_written(case, dtype, isa):
    x, w, kwargs = make(case, dtype)
    for name, laid in layouts(x):
        plain = conv_reduce(laid, w, activation="relu", backend="cpu", **kwargs)
        result = conv_reduce(
            laid, w, activation="relu", return_activation=True, backend="cpu", **kwargs
        )
        assert_same_bits(plain, result)
        written = result.activation
        assert written.dtype == dtype
        if name == "channels_last" and x.ndim in FORMATS and not laid.is_contiguous():
            assert written.is_contiguous(memory_format=FORMATS[written.ndim])
        else:
            assert written.is_contiguous()
        fields = reduce_positions(written.float().flatten(2), None)
        if dtype == torch.float32:
            for field, want in zip(FIELDS[2:], fields[2:], strict=True):
                assert torch.equal(getattr(result, field), want), field
            torch.testing.assert_close(result.sum, fields[0], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(result.sumsq, fields[1], rtol=1e-12, atol=1e-12)
        else:  # rounded after the reduction
            for field, want in zip(FIELDS[2:4], fields[2:4], strict=True):
                assert torch.equal(getattr(result, field).to(dtype).float(), want), field


@pytest.mark.parametrize("case", ["stem", "1x1", "depthwise_16", "3d", "late", "1d"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_isa
def test_the_network_may_go_on_with_another_value(case, dtype, isa):
    """Reduced: the value itself. Written: an affine map and an activation of it."""
    x, w, given = make(case, dtype)
    affine = {"scale": given.pop("scale"), "shift": given.pop("shift")}
    rank = w.ndim - 2
    module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](
        x.shape[1], w.shape[0], w.shape[2:],
        **{k: v for k, v in given.items() if k != "bias"},
    ).to(dtype)  # fmt: skip
    module.weight.data, module.bias.data = w, given["bias"]
    options = {"scale": None, "shift": None, "activation": None, "histogram": False}
    for post_ops in (PostOps(**affine, activation="gelu"), PostOps(activation="relu")):
        run = partial(conv_reduce_in_network, x, module, **options, written=True, backend="cpu")
        plain, got = run(post_ops=None), run(post_ops=post_ops)
        for name in FIELDS:
            assert torch.equal(getattr(got, name), getattr(plain, name)), name
        value = plain.activation.double()  # rounded to dtype before the map, not so in the kernel
        if post_ops.scale is not None:
            shape = (-1, *[1] * rank)
            value = value * post_ops.scale.view(shape) + post_ops.shift.view(shape)
        want = getattr(F, post_ops.activation)(value)
        unit = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-21
        size = plain.activation.double().abs() + 2
        assert ((got.activation.double() - want).abs() <= 2 * unit * size).all()
        assert got.activation.dtype == dtype


@every_isa
@pytest.mark.parametrize("case", ["3x3", "stem", "depthwise", "bands", "3d", "groups"])
def test_histogram_counts_the_activation_written(case, isa):
    x, w, kwargs = make(case)
    counts = torch.ones(w.shape[0], 2563, dtype=torch.int64)
    result = conv_reduce(
        x, w, histogram=counts, return_activation=True, activation="leaky_relu", backend="cpu",
        **kwargs,
    )  # fmt: skip
    assert result.histogram is counts
    want = torch.ones_like(counts)
    reduce_positions(result.activation.flatten(2), want)
    assert torch.equal(counts, want)


@every_isa
@pytest.mark.parametrize(
    "case", ["3x3", "1x1", "depthwise", "bands", "1d", "winograd", "small_groups"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_non_finite_values_are_counted_and_left_out(case, dtype, isa):
    x, w, kwargs = make(case, dtype)
    x[0, 0].view(-1)[1] = torch.nan
    x[0, -1].view(-1)[-1] = torch.inf
    result = conv_reduce(
        x, w, return_activation=True, histogram=True, activation="relu", backend="cpu", **kwargs
    )
    want = conv_reduce(x.float(), w.float(), activation="relu", backend="reference",
                       **{**kwargs, "bias": kwargs["bias"].float()})  # fmt: skip
    assert torch.equal(result.nonfinite, want.nonfinite)
    assert result.nonfinite.sum() > 0
    assert result.sum.isfinite().all()
    if dtype == torch.float32:
        counts = torch.zeros_like(result.histogram)
        fields = reduce_positions(result.activation.flatten(2), counts)
        for field, expected in zip(FIELDS[2:], fields[2:], strict=True):
            assert torch.equal(getattr(result, field), expected), field
        assert torch.equal(result.histogram, counts)


@every_isa
def test_sums_of_small_integers_are_exact_in_winograds_tiles(isa):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-4, 5, (2, 32, 9, 10), generator=g).float()
    w = torch.randint(-4, 5, (32, 32, 3, 3), generator=g).float()
    got = conv_reduce(x, w, padding=1, return_activation=True, backend="cpu")
    assert torch.equal(got.activation, F.conv2d(x, w, padding=1))


@every_isa
@pytest.mark.parametrize("value", [torch.inf, torch.nan, 2e37])
def test_a_value_changes_the_outputs_of_its_windows_alone(value, isa):
    """Winograd's tiles subtract neighbours: that of infinity, or of huge values, is no number."""
    x, w, kwargs = make("winograd")
    relu = partial(conv_reduce, activation="relu", return_activation=True, backend="cpu", **kwargs)
    before = relu(x, w).activation[0]
    x[0, 3, 4, 6] = value
    x[0, 5, 4, 8] = -value
    got = relu(x, w)
    want = F.relu(
        F.conv2d(x.double(), w.double(), kwargs["bias"].double(), padding=(1, 2))
        * kwargs["scale"].double()[:, None, None]
        + kwargs["shift"].double()[:, None, None]
    ).float()
    assert torch.equal(got.activation.isfinite(), want.isfinite())
    assert torch.equal(got.nonfinite, (~want.isfinite()).flatten(2).sum(-1))
    rows, columns = slice(3, 6), slice(5, 11)  # outputs whose windows hold a changed value
    finite = want.isfinite()
    finite[0, :, rows, columns] &= value != 2e37  # there a small sum is lost beside large ones
    torch.testing.assert_close(got.activation[finite], want[finite], rtol=1e-4, atol=1e-3)
    outside = torch.ones(before.shape[1:], dtype=torch.bool)
    outside[rows, columns] = False
    torch.testing.assert_close(
        got.activation[0][:, outside], before[:, outside], rtol=1e-5, atol=1e-4
    )


@every_isa
def test_nothing_but_nan(isa):
    x, w, kwargs = make("3x3")
    result = conv_reduce(x * torch.nan, w, backend="cpu", **kwargs)
    assert (result.nonfinite == result.count).all()
    assert (result.argmax == -1).all() and (result.argmin == -1).all()
    assert (result.max == -torch.inf).all() and (result.min == torch.inf).all()
    assert (result.sum == 0).all() and (result.positive == 0).all()


@every_isa
def test_ties_go_to_the_first_position(isa):
    x = torch.zeros(2, 3, 40, 40)
    w = torch.ones(5, 3, 1, 1)
    x[:, :, 7, 3:] = 1.0
    x[:, :, 30] = -1.0
    result = conv_reduce(x, w, backend="cpu")
    assert (result.argmax == 7 * 40 + 3).all()
    assert (result.argmin == 30 * 40).all()


@pytest.fixture
def poisoned_memory():
    """Every tensor that torch makes is filled with NaN, or the largest integer."""
    torch.use_deterministic_algorithms(mode=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(mode=False)


@every_isa
def test_every_result_is_written(isa, poisoned_memory):
    for case in CASES:
        x, w, kwargs = make(case)
        for _, laid in layouts(x):
            result = conv_reduce(laid, w, return_activation=True, backend="cpu", **kwargs)
            assert_within(result, x, w, None, **kwargs)
            assert result.activation.isfinite().all()


def test_no_samples():
    x, w, kwargs = make("3x3")
    result = conv_reduce(x[:0], w, histogram=True, return_activation=True, backend="cpu", **kwargs)
    assert result.max.shape == (0, 9)
    assert result.histogram.sum() == 0
    assert result.activation.shape == (0, 9, 13, 11)


def test_overlapping_input_strides():
    base = torch.randn(2, 4, 40)
    x = base.as_strided((2, 4, 9, 9), (160, 40, 3, 1))  # rows that overlap
    w = torch.randn(5, 4, 3, 3)
    got = conv_reduce(x, w, backend="cpu", return_activation=True)
    torch.testing.assert_close(got.activation, F.conv2d(x.clone(), w), rtol=1e-4, atol=1e-4)


def test_weights_changed_in_place_are_seen():
    x, w, kwargs = make("3x3")
    before = conv_reduce(x, w, backend="cpu", **kwargs)
    w.data.mul_(2)
    after = conv_reduce(x, w, backend="cpu", **kwargs)
    assert not torch.equal(before.sum, after.sum)
    assert_within(after, x, w, None, **kwargs)
