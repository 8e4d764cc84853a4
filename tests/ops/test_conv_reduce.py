"""conv_reduce: `reference` against float64 torch convolutions, every backend within its bound."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.backend_cases import FIELDS, every_backend, layouts
from helpers.tolerance import U32, assert_reduces, conv_bound, sum_rounding
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import conv_reduce
from fastconv.errors import InputError
from fastconv.histogram import BINS
from fastconv.reduction import ACTIVATIONS

both_backends = every_backend("conv_reduce")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CONV = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}

# input shape, C_out, kernel, geometry
CASES = {
    "1x1": ((3, 16, 7, 9), 33, (1, 1), {}),
    "3x3": ((2, 7, 9, 8), 9, (3, 3), {"padding": 1}),
    "5x7_stride": ((2, 3, 19, 23), 17, (5, 7), {"stride": (2, 3), "padding": (2, 3)}),
    "dilated": ((1, 8, 15, 17), 15, (3, 3), {"dilation": (2, 3), "padding": (0, 1)}),
    "groups": ((2, 12, 9, 7), 6, (3, 3), {"groups": 3, "stride": 2}),
    "depthwise": ((2, 17, 9, 10), 17, (3, 3), {"groups": 17, "padding": 1}),
    "multiplier": ((1, 5, 8, 8), 15, (3, 5), {"groups": 5, "padding": "same"}),
    "same_even": ((2, 3, 9, 8), 8, (2, 4), {"padding": "same", "dilation": (3, 1)}),
    "valid": ((2, 3, 5, 6), 1, (5, 6), {"padding": "valid"}),
    "wide_padding": ((1, 1, 4, 4), 3, (3, 3), {"padding": 6}),
    "1d": ((3, 5, 65), 16, (9,), {"stride": 2, "padding": 4, "dilation": 3}),
    "1d_same_even": ((2, 3, 16), 7, (4,), {"padding": "same"}),
    "3d": ((2, 3, 5, 7, 6), 9, (3, 3, 3), {"padding": 1, "stride": (1, 2, 1)}),
    "3d_same_even": ((1, 4, 5, 6, 4), 2, (2, 3, 4), {"padding": "same", "groups": 2}),
}


def make(case, dtype=torch.float32, device="cpu"):
    shape, c_out, kernel, geometry = CASES[case]
    generator = torch.Generator().manual_seed(0)

    def random(*size):
        return torch.randn(size, generator=generator)

    tensors = {
        "weight": random(c_out, shape[1] // geometry.get("groups", 1), *kernel).to(dtype),
        "bias": random(c_out).to(dtype),
        "scale": random(c_out),
        "shift": random(c_out),
    }
    tensors = {name: value.to(device) for name, value in tensors.items()}
    return random(*shape).to(dtype).to(device), {**tensors, **geometry}


def torch_value(x, weight, bias, scale, shift, activation=None, **geometry):
    """activation(scale * conv + shift) in float64 by torch alone: [N, C_out, P]."""
    conv = CONV[weight.ndim](x.double(), weight.double(), bias.double(), **geometry)
    value = conv.flatten(2) * scale.double()[:, None] + shift.double()[:, None]
    return value if activation is None else getattr(F, activation)(value)


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("case", CASES)
def test_reference_in_float64_is_torch(case, activation):
    x, kwargs = make(case, torch.float64)
    value = torch_value(x, **kwargs, activation=activation)
    for _, laid in layouts(x):
        result = conv_reduce(
            laid, **kwargs, activation=activation, return_activation=True, backend="reference"
        )
        torch.testing.assert_close(result.activation.flatten(2), value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(result.sum, value.sum(-1), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(result.max, value.amax(-1).float())
        there = value.gather(-1, result.argmax[..., None])[..., 0]
        torch.testing.assert_close(there, value.amax(-1))


@both_backends
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_float64_within_the_derived_bound(case, dtype, device, backend):
    x, kwargs = make(case, dtype, device)
    bound = conv_bound(x, **kwargs)
    for _, laid in layouts(x):
        for activation in (None, "relu"):
            result = conv_reduce(laid, **kwargs, activation=activation, backend=backend)
            assert_reduces(result, torch_value(x, **kwargs, activation=activation), bound, backend)


@both_backends
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation, device, backend):
    x, kwargs = make("3x3", device=device)
    linear = torch_value(x, **kwargs)
    value = torch_value(x, **kwargs, activation=activation)
    bound = 1.5 * conv_bound(x, **kwargs) + 8 * U32 * (linear.abs() + value.abs())
    result = conv_reduce(x, **kwargs, activation=activation, backend=backend)
    assert_reduces(result, value, bound, backend)


@both_backends
@pytest.mark.parametrize("case", CASES)
def test_reductions_are_those_of_the_activation_written(case, device, backend):
    x, kwargs = make(case, device=device)
    for _, laid in layouts(x):
        result = conv_reduce(
            laid, **kwargs, activation="relu", histogram=True, return_activation=True,
            backend=backend,
        )  # fmt: skip
        again = fastconv.channel_reduce(result.activation, histogram=True, backend="reference")
        for name in FIELDS[2:]:
            assert torch.equal(getattr(result, name), getattr(again, name)), name
        assert torch.equal(result.histogram, again.histogram)
        rtol = 1e-12 + sum_rounding(backend, result.count)  # nothing is below zero
        torch.testing.assert_close(result.sum, again.sum, rtol=rtol, atol=1e-12)
        torch.testing.assert_close(result.sumsq, again.sumsq, rtol=rtol, atol=1e-12)


@both_backends
def test_the_activation_has_the_dtype_of_the_input(device, backend):
    x, kwargs = make("3x3", torch.bfloat16, device)
    result = conv_reduce(x, **kwargs, return_activation=True, backend=backend)
    assert result.activation.dtype == torch.bfloat16
    assert torch.equal(result.activation.flatten(2).amax(-1), result.max.bfloat16())
    assert conv_reduce(x, **kwargs, backend=backend).activation is None


@both_backends
def test_nothing_optional_and_no_samples(device, backend):
    x, kwargs = make("3x3", device=device)
    plain = conv_reduce(x, kwargs["weight"], backend=backend)
    want = F.conv2d(x.double(), kwargs["weight"].double()).flatten(2)
    assert_reduces(plain, want, conv_bound(x, kwargs["weight"]), backend)
    none = conv_reduce(x[:0], **kwargs, histogram=True, backend=backend)
    assert none.max.shape == (0, 9)
    assert none.histogram.sum() == 0


@both_backends
def test_trap_6_nan_is_counted_and_left_out(device, backend):
    x, kwargs = make("3x3", device=device)
    x[0, 2, 4, 4] = torch.nan
    result = conv_reduce(x, **kwargs, histogram=True, backend=backend)
    assert result.nonfinite.tolist() == [[9] * 9, [0] * 9]
    assert result.max.isfinite().all() and result.sum.isfinite().all()
    assert result.histogram.shape == (9, BINS)
    assert (result.histogram.sum(-1) == 2 * 72 - 9).all()


@both_backends
def test_trap_13_ties_go_to_the_first_position(device, backend):
    x = torch.zeros(1, 3, 33, 17, device=device)
    x[..., 4, 5:] = 1.0
    x[..., 20, :] = -1.0
    result = conv_reduce(x, torch.ones(17, 3, 1, 1, device=device), backend=backend)
    assert (result.argmax == 4 * 17 + 5).all()
    assert (result.argmin == 20 * 17).all()


@settings(max_examples=40)
@given(data=st.data())
def test_any_geometry(data):
    rank, groups = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 5]))
    kernel = data.draw(st.tuples(*[st.integers(1, 4)] * rank))
    size = data.draw(st.tuples(*[st.integers(5, 11)] * rank))
    stride = data.draw(st.tuples(*[st.integers(1, 3)] * rank))
    padding = data.draw(st.tuples(*[st.integers(0, 5)] * rank))
    dilation = data.draw(st.tuples(*[st.integers(1, 2)] * rank))
    n, c_in, c_out = (data.draw(st.integers(low, 3)) for low in (0, 1, 1))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    x = torch.randn(n, c_in * groups, *size, generator=generator)
    weight = torch.randn(c_out * groups, c_in, *kernel, generator=generator)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if any(s + 2 * p < d * (k - 1) + 1
           for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)):  # fmt: skip
        with pytest.raises(InputError, match="the output is empty"):
            conv_reduce(x, weight, **geometry)
        return
    value = CONV[weight.ndim](x.double(), weight.double(), **geometry).flatten(2)
    bound = conv_bound(x, weight, **geometry)
    for backend in fastconv.backends()["conv_reduce"]:
        assert_reduces(conv_reduce(x, weight, **geometry, backend=backend), value, bound, backend)


X, W = torch.zeros(2, 4, 5, 5), torch.zeros(6, 4, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(6, 4)}, r"weight must be \[C_out, C_in/groups, \*kernel\]"),
        ({"input": torch.zeros(2, 4, 5)}, r"2 spatial dimensions like the weight, got \[2, 4, 5\]"),
        ({"input": X.int()}, "input must be float32, .*, got torch.int32"),
        ({"weight": W.double()}, "weight is torch.float64 on cpu, the input torch.float32"),
        ({"weight": W.to("meta")}, "weight is torch.float32 on meta"),
        ({"groups": 2}, "4 input channels, weight .* and groups=2 do not fit"),
        ({"groups": 4, "weight": torch.zeros(6, 1, 3, 3)}, "C_out must be a multiple of groups"),
        ({"groups": 0}, "groups=0 do not fit"),
        ({"weight": torch.zeros(6, 4, 0, 3)}, r"weight is empty: \[6, 4, 0, 3\]"),
        ({"bias": torch.zeros(5)}, r"bias must be \[6\], got \[5\]"),
        ({"bias": torch.zeros(6).half()}, "bias is torch.float16"),
        ({"scale": torch.zeros(4)}, r"scale must be \[6\], got \[4\]"),
        ({"stride": 0}, r"stride must be at least 1 everywhere, got \(0, 0\)"),
        ({"stride": (1, 2, 3)}, "stride must be an int or 2 ints"),
        ({"padding": -1}, "padding must not be negative"),
        ({"padding": "reflect"}, "padding must be ints, 'same' or 'valid', got 'reflect'"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"dilation": 4}, r"the output is empty: input \[5, 5\]"),
        ({"activation": "swish"}, "activation must be None or one of"),
        ({"histogram": torch.zeros(6, 9)}, r"histogram must be a bool or contiguous int64 \[6, "),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message):
        conv_reduce(**{"input": X, "weight": W, **change})
