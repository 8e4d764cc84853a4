"""The C++ convolution: every instruction set, odd sizes, bits that no split changes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastconv import conv_reduce
from fastconv.backends import cpu
from fastconv.backends.cpu.conv_reduce import pack_weight
from fastconv.backends.reference.channel_reduce import reduce_positions
from fastconv.dispatch import load
from fastconv.geometry import ConvGeometry
from fastconv.ops.conv_reduce import conv_reduce_in_network
from fastconv.reduction import CandidateLists, PostOps

pytestmark = pytest.mark.skipif(isinstance(load("cpu"), str), reason=str(load("cpu")))
ISAS = cpu.ISA_LEVELS
FIELDS = ("sum", "sumsq", "min", "max", "argmax", "argmin", "positive", "nonfinite")
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}

# n, c_in, c_out, size, kernel, options
CASES = {
    "stem": (2, 3, 17, (19, 23), (5, 7), {"stride": (2, 1), "padding": (3, 2)}),
    "1x1": (3, 15, 33, (7, 9), (1, 1), {}),
    "1x1_stride": (2, 16, 64, (9, 8), (1, 1), {"stride": (2, 3)}),
    "3x3": (2, 8, 9, (13, 11), (3, 3), {"padding": 1}),
    "one_channel": (2, 1, 1, (5, 6), (3, 3), {"padding": "valid"}),
    "even_same": (1, 7, 15, (8, 9), (2, 4), {"padding": "same", "dilation": (1, 3)}),
    "padding_beyond_kernel": (1, 3, 8, (4, 5), (3, 3), {"padding": 5}),
    "padding_only": (1, 2, 3, (1, 1), (2, 2), {"padding": 4, "stride": 3}),
    "dilated": (1, 9, 16, (17, 19), (3, 3), {"dilation": (3, 2), "stride": (1, 2)}),
    "groups": (2, 12, 36, (9, 7), (3, 3), {"groups": 3, "padding": 1}),
    "small_groups": (2, 24, 36, (9, 7), (3, 3), {"groups": 12, "padding": 1, "stride": (1, 2)}),
    "small_groups_1d": (3, 8, 32, (40,), (5,), {"groups": 4, "dilation": 2}),
    "groups_1x1": (2, 34, 66, (5, 5), (1, 1), {"groups": 2}),
    "depthwise": (2, 33, 33, (9, 14), (3, 3), {"groups": 33, "padding": 1}),
    "depthwise_multiplier": (1, 7, 21, (9, 8), (5, 7), {"groups": 7, "padding": 3, "stride": 2}),
    "depthwise_dilated": (1, 16, 16, (12, 31), (3, 3), {"groups": 16, "dilation": 2, "padding": 2}),
    "depthwise_16": (2, 32, 32, (9, 17), (3, 3), {"groups": 32, "padding": 1}),
    "depthwise_16_stride": (1, 48, 48, (11, 36), (5, 5), {"groups": 48, "padding": 2, "stride": 2}),
    "depthwise_16_far": (2, 16, 16, (5, 6), (7, 7), {"groups": 16, "padding": (9, 8)}),
    "depthwise_16_3d": (1, 16, 16, (5, 6, 7), (3, 3, 3), {"groups": 16, "padding": (2, 1, 1)}),
    "depthwise_16_bands": (1, 64, 64, (70, 57), (3, 3), {"groups": 64, "padding": 1}),
    "depthwise_16_stride_bands": (2, 480, 480, (13, 80), (3, 3), {"groups": 480, "stride": 2}),
    "1d": (3, 3, 17, (101,), (9,), {"stride": 2, "padding": 4}),
    "1d_depthwise": (2, 8, 8, (40,), (5,), {"groups": 8, "padding": "same"}),
    "3d": (2, 3, 16, (4, 9, 7), (3, 3, 3), {"padding": 1, "dilation": (1, 2, 1)}),
    "3d_stride": (1, 8, 17, (5, 8, 9), (3, 1, 2), {"padding": (1, 0, 2), "stride": (2, 1, 2)}),
    "3d_depthwise": (1, 5, 5, (5, 6, 7), (3, 3, 3), {"groups": 5, "padding": 1}),
    "late": (3, 64, 96, (7, 7), (3, 3), {"padding": 1}),
    "late_stride": (2, 32, 33, (9, 14), (3, 3), {"padding": 1, "stride": 2}),
    "1x1_32": (2, 32, 40, (9, 14), (1, 1), {}),
    "1d_one": (2, 1, 17, (101,), (9,), {"stride": 4, "padding": 4}),
    "1d_32_stride": (2, 64, 16, (75,), (9,), {"padding": 4, "stride": 3}),
    "3d_32": (1, 32, 17, (4, 6, 9), (3, 3, 3), {"padding": 1, "dilation": (1, 1, 2)}),
    "groups_32": (1, 64, 34, (8, 8), (3, 3), {"groups": 2, "padding": "same"}),
    "bands": (1, 64, 33, (65, 60), (3, 3), {"padding": 1}),
    "winograd": (3, 48, 40, (11, 13), (3, 3), {"padding": (1, 2)}),
    "winograd_bands": (1, 32, 33, (38, 61), (3, 3), {}),
    "winograd_groups": (2, 64, 96, (6, 5), (3, 3), {"groups": 2, "padding": 2}),
    "winograd_row": (2, 32, 32, (1, 9), (3, 3), {"padding": 1}),
    "winograd_3d": (1, 32, 48, (4, 5, 6), (3, 3, 3), {"padding": 1, "stride": (2, 1, 1)}),
    "narrow": (3, 128, 40, (7, 7), (3, 3), {"padding": 1}),
    "narrow_stride": (1, 130, 17, (9, 8), (3, 5), {"padding": (1, 2), "stride": (1, 2)}),
    "narrow_far": (1, 128, 9, (3, 2), (2, 3), {"padding": 4, "dilation": (2, 3)}),
    "narrow_3d_stride": (5, 16, 40, (7, 5, 6), (3, 3, 3), {"padding": 1, "stride": 2}),
    "narrow_groups": (3, 64, 34, (6, 9), (3, 3), {"groups": 2, "padding": 1, "stride": (2, 1)}),
    "narrow_3d": (1, 128, 33, (3, 4, 5), (3, 3, 3), {"padding": (2, 1, 1)}),
}


def make(case, dtype=torch.float32, seed=0):
    n, c_in, c_out, size, kernel, options = CASES[case]
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c_in, *size, generator=g).to(dtype)
    w = torch.randn(c_out, c_in // options.get("groups", 1), *kernel, generator=g).to(dtype)
    rest = {
        "bias": torch.randn(c_out, generator=g).to(dtype),
        "scale": torch.rand(c_out, generator=g) - 0.3,
        "shift": torch.randn(c_out, generator=g),
    }
    return x, w, {**options, **rest}


every_isa = pytest.mark.parametrize("isa", ISAS, indirect=True)


def error_bound(x, w, bias, scale, shift, **options):
    """[N, C, P]: gamma(gemm_k + 4) * (|scale| * (|x| * |w| + |bias|) + |shift|), of each value."""
    absolute = conv_reduce(
        x.double().abs(), w.double().abs(), bias.double().abs(), scale=scale.abs(),
        shift=shift.abs(), return_activation=True, backend="reference", **options,
    ).activation.flatten(2)  # fmt: skip
    return (w[0].numel() + 4) * 2.0**-24 * absolute


def assert_within(result, x, w, activation, **kwargs):
    """Every field agrees with float64 within the bound of its values."""
    exact = conv_reduce(
        x.double(), w.double(), return_activation=True, backend="reference",
        activation=activation, **{**kwargs, "bias": kwargs["bias"].double()},
    )  # fmt: skip
    value = exact.activation.flatten(2)
    bound = 1.2 * error_bound(x, w, **kwargs) + 4 * 2.0**-23 * (value.abs() + 0.5)
    summed = value.shape[-1] * 2.0**-52
    assert ((result.sum - exact.sum).abs() <= bound.sum(-1) + summed * value.abs().sum(-1)).all()
    square = (2 * value.abs() + bound) * bound
    assert ((result.sumsq - exact.sumsq).abs() <= square.sum(-1) + summed * exact.sumsq).all()
    for got, want, at in (("max", "max", "argmax"), ("min", "min", "argmin")):
        error = (getattr(result, got).double() - getattr(exact, want)).abs()
        assert (error <= bound.amax(-1)).all()
        there = value.gather(-1, getattr(result, at)[..., None])[..., 0]
        assert ((there - getattr(exact, want)).abs() <= 2 * bound.amax(-1)).all()
    unsure = (value.abs() <= bound).sum(-1)
    assert ((result.positive - exact.positive).abs() <= unsure).all()
    assert torch.equal(result.nonfinite, exact.nonfinite)
    assert result.count == exact.count


def layouts(x):
    yield "contiguous", x.contiguous()
    if x.ndim in FORMATS:
        yield "channels_last", x.contiguous(memory_format=FORMATS[x.ndim])
    yield "strided", torch.stack([x, x], -1)[..., 0]


def assert_same_bits(a, b):
    for name in FIELDS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


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
        if name == "channels_last" and not laid.is_contiguous():
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
@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_batch_threads_or_layout(case, isa):
    x, w, kwargs = make(case)
    many = torch.cat([x, torch.randn(13, *x.shape[1:])])
    whole = conv_reduce(many, w, activation="silu", histogram=True, backend="cpu", **kwargs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single = conv_reduce(many, w, activation="silu", histogram=True, backend="cpu", **kwargs)
        parts = [
            conv_reduce(part, w, activation="silu", histogram=True, backend="cpu", **kwargs)
            for part in many.split(1)
        ]
    finally:
        torch.set_num_threads(threads)
    assert_same_bits(whole, single)
    for name in FIELDS:
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))
    assert torch.equal(whole.histogram, single.histogram)
    assert torch.equal(whole.histogram, sum(p.histogram for p in parts))
    for _, laid in layouts(many):
        assert_same_bits(whole, conv_reduce(laid, w, activation="silu", backend="cpu", **kwargs))


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["stem", "1x1", "3x3", "narrow_stride", "3d_32", "groups_32"])
def test_bits_do_not_depend_on_the_layout_of_the_weights(case, dtype, isa):
    x, w, kwargs = make(case, dtype)
    want = conv_reduce(x, w, backend="cpu", **kwargs)
    for name, laid in layouts(w):
        assert_same_bits(want, conv_reduce(x, laid, backend="cpu", **kwargs))
        assert name == "contiguous" or w[0, 0].numel() == 1 or not laid.is_contiguous()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_batch_of_64_has_the_bits_of_its_samples(threads):
    _, w, kwargs = make("late")
    x = torch.randn(64, *make("late")[0].shape[1:])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = conv_reduce(x, w, backend="cpu", **kwargs)
        parts = [conv_reduce(part, w, backend="cpu", **kwargs) for part in x.split(7)]
    finally:
        torch.set_num_threads(before)
    for name in FIELDS:
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))


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


def kernel_arguments(x, w, kwargs):
    """As the backend takes them, up to shift."""
    options = {k: v for k, v in kwargs.items() if k not in ("bias", "scale", "shift")}
    g = ConvGeometry.create(tuple(w.shape[2:]), **options)
    padding = [p for pair in g.padding for p in pair]
    return (
        x, w, kwargs["bias"], list(g.stride), padding, list(g.dilation), g.groups,
        kwargs["scale"], kwargs["shift"],
    )  # fmt: skip


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_packed_weights_give_the_same_bits(case, dtype, isa):
    x, w, kwargs = make(case, dtype)
    run, args = cpu.KERNELS["conv_reduce"].run, kernel_arguments(x, w, kwargs)
    for weight in (w, w.contiguous(memory_format=FORMATS.get(w.ndim, torch.contiguous_format))):
        packed = pack_weight(weight, args[3], args[5], kwargs.get("groups", 1))
        plain = run(*args, "relu", None, return_activation=True)
        again = run(*args, "relu", None, return_activation=True, packed=packed)
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_weights_packed_for_another_convolution_are_refused():
    x, w, kwargs = make("3x3")
    packed = pack_weight(w[:, :5].contiguous(), [1, 1], [1, 1], 1)
    with pytest.raises(RuntimeError, match="packed for another convolution"):
        cpu.KERNELS["conv_reduce"].run(
            *kernel_arguments(x, w, kwargs), None, None, return_activation=False, packed=packed
        )


@every_isa
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("case", ["3x3", "1x1_32", "depthwise", "bands", "1d", "3d", "groups"])
def test_lists_hold_what_reaches_the_threshold(case, largest, isa):
    x, w, kwargs = make(case)
    x = (x * 2).round()  # ties
    x[0, 0].view(-1)[3] = torch.nan
    x[-1, -1].view(-1)[5] = torch.inf
    run, args = cpu.KERNELS["conv_reduce"].run, kernel_arguments(x, w, kwargs)
    value = run(*args, "relu", None, return_activation=True)[-1]
    fill = partial(run, *args, "relu", None, return_activation=False)
    check_lists(lambda lists: fill(candidates=lists), value, largest=largest)


@every_isa
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("shape", [(3, 17, 5, 7), (2, 33, 9, 31), (1, 3, 2000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lists_of_an_activation(shape, dtype, largest, isa):
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 4).round().to(dtype)
    x.view(-1)[::17] = torch.nan
    x.view(-1)[1::23] = torch.inf
    x.view(-1)[2::23] = -0.0
    reduce = cpu.KERNELS["channel_reduce"].run
    for _, laid in layouts(x):
        check_lists(
            lambda lists, x=laid: reduce(x, None, None, None, None, lists), x, largest=largest
        )


def check_lists(fill, value, *, largest):
    value = value.flatten(2).float()
    n, channels, positions = value.shape
    finite = value.masked_fill(~value.isfinite(), 0)
    threshold = finite.transpose(0, 1).flatten(1).quantile(0.9 if largest else 0.3, dim=1)
    lists = CandidateLists.create(threshold, n * positions, largest=largest)
    plain, short = fill(lists), CandidateLists.create(threshold, 2, largest=largest)
    for one, other in zip(plain, fill(short), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(lists.counts, short.counts)
    for c in range(channels):
        row = value[:, c].flatten()
        reached = row >= threshold[c] if largest else row <= threshold[c]
        want = (reached & row.isfinite()).nonzero()[:, 0]
        places, order = lists.places[c, : lists.counts[c]].sort()
        assert torch.equal(places, want)
        assert torch.equal(lists.values[c, : lists.counts[c]][order], row[want])
        kept = short.places[c, : min(2, int(short.counts[c]))]
        assert set(kept.tolist()) <= set(want.tolist()) and len(set(kept.tolist())) == len(kept)
