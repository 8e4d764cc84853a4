"""Convolutions of every kind that the C++ kernels treat apart, and the bound of their errors."""

from __future__ import annotations

import torch

from fastconv import conv_reduce
from fastconv.geometry import ConvGeometry
from helpers.tolerance import assert_reduces, conv_bound

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


def assert_within(result, x, w, activation, **kwargs):
    """Every field agrees with float64 within the bound of its values."""
    exact = conv_reduce(
        x.double(), w.double(), return_activation=True, backend="reference",
        activation=activation, **{**kwargs, "bias": kwargs["bias"].double()},
    )  # fmt: skip
    value = exact.activation.flatten(2)
    bound = 1.2 * conv_bound(x, w, **kwargs) + 4 * 2.0**-23 * (value.abs() + 0.5)
    assert_reduces(result, value, bound, "cpu")


def kernel_arguments(x, w, kwargs):
    """As the backend takes them, up to shift."""
    options = {k: v for k, v in kwargs.items() if k not in ("bias", "scale", "shift")}
    g = ConvGeometry.create(tuple(w.shape[2:]), **options)
    padding = [p for pair in g.padding for p in pair]
    return (
        x, w, kwargs["bias"], list(g.stride), padding, list(g.dilation), g.groups,
        kwargs["scale"], kwargs["shift"],
    )  # fmt: skip
