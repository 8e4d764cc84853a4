from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv import channel_reduce, conv_reduce
from fastconv.backends.triton import conv_pointer, conv_tma, tuning

EXACT = ("min", "max", "argmax", "argmin", "positive", "nonfinite", "histogram")
# input shape, C_out, kernel, stride, padding, dilation
CASES = {
    "3x3": ((3, 8, 7, 9), 5, (3, 3), 1, 1, 1),
    "channel_blocks": ((3, 24, 5, 3), 35, (1, 3), 1, (0, 1), 1),
    "two_samples_a_tile": ((3, 8, 3, 3), 3, (2, 2), 1, 1, 1),
    "stride_2": ((2, 8, 9, 10), 5, (3, 3), 2, 1, 1),
    "stride_2_1x1": ((2, 8, 9, 7), 5, (1, 1), 2, 0, 1),
    "stride_and_dilation": ((2, 8, 9, 10), 5, (3, 2), (2, 1), (2, 1), (1, 3)),
    "dilation_keeps_parity": ((2, 8, 9, 10), 5, (3, 3), 2, 1, 2),
    "padding_beyond_kernel": ((1, 8, 3, 3), 3, (2, 2), 1, 3, 1),
    "1d": ((2, 8, 69), 5, (5,), 3, 4, 1),
    "3d": ((1, 8, 3, 4, 5), 5, (2, 3, 3), (1, 2, 2), 1, 1),
}


def last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


@pytest.fixture(autouse=True)
def only_descriptors(device, monkeypatch):
    """Nothing of this file may run on another kernel."""
    if device == "cuda" and tuning.no_tma(torch.empty(1, device=device).bfloat16()):
        pytest.skip("this device has no TMA")
    monkeypatch.setattr(conv_pointer, "gemm", None)


DTYPES = [*((case, torch.bfloat16) for case in CASES)]
DTYPES += [
    (case, dtype) for case in ("3x3", "stride_2") for dtype in (torch.float16, torch.float32)
]


@pytest.mark.parametrize(("case", "dtype"), DTYPES)
def test_equals_float64_on_exact_values(case, dtype, device):
    shape, c_out, kernel, *geometry = CASES[case]
    generator = torch.Generator().manual_seed(len(case))

    def draw(*size):
        return (torch.randint(-3, 4, size, generator=generator) / 2).to(device, dtype)

    x, weight, bias = last(draw(*shape)), draw(c_out, shape[1], *kernel), draw(c_out)
    affine = {"scale": torch.arange(c_out, device=device) - 2.0, "activation": "relu6"}
    got = conv_reduce(
        x,
        weight,
        bias,
        *geometry,
        **affine,
        histogram=True,
        return_activation=True,
        backend="triton",
    )
    wide = [t.double() for t in (x, weight, bias)]
    wanted = conv_reduce(*wide, *geometry, return_activation=True, backend="reference").activation
    wanted = channel_reduce(wanted.float(), **affine, histogram=True, backend="reference")
    for name in ("sum", "sumsq", *EXACT):
        assert torch.equal(getattr(got, name), getattr(wanted, name)), name
    assert torch.equal(got.activation.float().amax(tuple(range(2, x.ndim))), got.max.to(dtype))


def test_bits_do_not_depend_on_the_batch(device):
    x = last(torch.randn(7, 8, 3, 11, device=device)).bfloat16()
    weight = torch.randn(5, 8, 1, 3, device=device).bfloat16()
    whole = conv_reduce(x, weight, histogram=True, backend="triton")
    parts = [conv_reduce(p, weight, histogram=True, backend="triton") for p in x.split([1, 3, 3])]
    for name in ("sum", "sumsq", *EXACT[:-1]):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(getattr(whole, name), joined), name
    assert torch.equal(whole.histogram, sum(part.histogram for part in parts))


def test_nonfinite_values_stay_in_their_sample(device):
    x = torch.randint(-3, 4, (3, 8, 3, 3), device=device).bfloat16()
    x[0, 0, 0, 0] = torch.nan
    x[1, 1] = torch.inf
    weight = torch.randint(1, 3, (4, 8, 1, 1), device=device).bfloat16()
    got = conv_reduce(last(x), weight, backend="triton")
    wanted = conv_reduce(x.float(), weight.float(), backend="reference")
    for name in ("sum", "sumsq", *EXACT[:-1]):
        assert torch.equal(getattr(got, name), getattr(wanted, name)), name


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "groups", "reason"),
    [
        ((1, 8, 5, 5), (3, 3), 1, 2, "2 groups"),
        ((1, 7, 5, 5), (3, 3), 1, 1, "not a multiple of 16 bytes"),
        ((1, 8, 9, 9), (3, 3), 3, 1, "needs 9 parity planes"),
        ((1, 8, 1, 9), (1, 1), 2, 1, "a parity plane is empty"),
    ],
)
def test_what_goes_to_pointers_instead(shape, kernel, stride, groups, reason):
    from fastconv.backends.triton.conv_problem import problem

    x = torch.zeros(shape).bfloat16()
    weight = torch.zeros(4, shape[1] // groups, *kernel)
    case = problem(x, weight, (stride, stride), (0, 0, 0, 0), (1, 1), groups)
    assert reason in conv_tma.ineligible(x, case)


def test_tiles_cover_the_map_without_waste():
    assert tuning.box((1, 56, 56), 128) == (2, 1, 8, 8)
    assert tuning.box((1, 1, 1000), 128) == (1, 1, 1, 128)
    for size in ((1, 7, 7), (3, 5, 9), (1, 1, 1), (1, 224, 224)):
        box = tuning.box(size, 64)
        assert box[0] * box[1] * box[2] * box[3] == 64
