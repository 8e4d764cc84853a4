from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv import channel_reduce
from fastconv.backends.triton import launch
from fastconv.errors import BackendUnavailableError

EXACT = ("min", "max", "argmax", "argmin", "positive", "nonfinite", "histogram")


def activation(shape: tuple[int, ...], device: str, layout: str = "first") -> torch.Tensor:
    """Few distinct values, so that ties are frequent and every sum is exact."""
    generator = torch.Generator().manual_seed(sum(shape))
    x = (torch.randint(-9, 9, shape, generator=generator) / 4).to(device)
    if layout == "last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.flip(-1) if layout == "reversed" else x


def assert_same(got, wanted) -> None:
    for name in EXACT:
        a, b = getattr(got, name), getattr(wanted, name)
        assert (a is None and b is None) or torch.equal(a, b), name
    torch.testing.assert_close(got.sum, wanted.sum, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(got.sumsq, wanted.sumsq, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 3), torch.float32),
        ((3, 7, 1), torch.bfloat16),
        ((2, 17, 33), torch.float16),
        ((2, 5, 13, 11), torch.float32),
        ((1, 9, 3, 5, 7), torch.bfloat16),
    ],
)
@pytest.mark.parametrize("layout", ["first", "last", "strided"])
def test_equals_reference_on_exact_values(shape, layout, dtype, device):
    x = activation(shape, device, layout).to(dtype)
    if layout == "strided":
        x = torch.stack([x, x + 1], -1)[..., 0]
    got = channel_reduce(x, histogram=True, activation="relu6", backend="triton")
    wanted = channel_reduce(x, histogram=True, activation="relu6", backend="reference")
    assert_same(got, wanted)
    assert torch.equal(got.sum, wanted.sum)
    assert torch.equal(got.sumsq, wanted.sumsq)


@pytest.mark.parametrize("layout", ["first", "last"])
def test_random_values_with_affine(layout, device):
    x = torch.randn(3, 6, 13, 17, device=device)
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    affine = {
        "scale": torch.randn(6, device=device, dtype=torch.float64),
        "shift": torch.randn(6, device=device),
        "activation": "leaky_relu",
    }
    counts = torch.full((6, 2563), 5, device=device)
    got = channel_reduce(x, **affine, histogram=counts, backend="triton")
    wanted = channel_reduce(x, **affine, histogram=True, backend="reference")
    assert got.histogram is counts
    assert_same(got._replace(histogram=counts - 5), wanted)


@pytest.mark.parametrize("layout", ["first", "last"])
def test_nonfinite_values_are_counted_and_left_out(layout, device):
    x = activation((2, 5, 11, 13), device)
    x[0, 0, 0, 0] = torch.nan
    x[0, 1, 5] = torch.inf
    x[1, 1, 10, 12] = -torch.inf
    x[1, 3] = torch.nan
    x[0, 4] = -torch.nan
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    got = channel_reduce(x, histogram=True, backend="triton")
    assert_same(got, channel_reduce(x, histogram=True, backend="reference"))
    assert got.argmax[1, 3] == got.argmin[0, 4] == -1
    assert got.max[1, 3] == -torch.inf
    assert got.min[1, 3] == torch.inf


@pytest.mark.parametrize("layout", ["first", "last"])
def test_squares_beyond_float32(layout, device):
    x = torch.randn(2, 3, 7, 9, device=device)
    x[1, 1] *= 3e37
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    got = channel_reduce(x, backend="triton")
    wanted = channel_reduce(x, backend="reference")
    torch.testing.assert_close(got.sum, wanted.sum, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(got.sumsq, wanted.sumsq, rtol=1e-5, atol=0)


@pytest.mark.parametrize("layout", ["first", "last"])
def test_bits_do_not_depend_on_the_batch(layout, device):
    x = torch.randn(7, 5, 13, 11, device=device)
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    whole = channel_reduce(x, histogram=True, backend="triton")
    parts = [channel_reduce(p, histogram=True, backend="triton") for p in x.split([1, 3, 3])]
    for name in ("sum", "sumsq", *EXACT[:-1]):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(getattr(whole, name), joined), name
    assert torch.equal(whole.histogram, sum(part.histogram for part in parts))


def test_zeros_of_either_sign_are_one_value(device):
    x = torch.tensor([-0.0, 0.0, -0.0], device=device).expand(1, 2, 3)
    got = channel_reduce(x, backend="triton")
    assert got.argmax.tolist() == got.argmin.tolist() == [[0, 0]]
    assert not got.max.signbit().any()


def test_empty_batch(device):
    got = channel_reduce(torch.empty(0, 3, 99, device=device), histogram=True, backend="triton")
    assert got.sum.shape == (0, 3)
    assert got.histogram.sum() == 0


def test_reasons_for_refusal(device, monkeypatch):
    x = torch.zeros(1, 2, 3, device=device)
    with pytest.raises(BackendUnavailableError, match="float64 runs on the reference"):
        channel_reduce(x.double(), backend="triton")
    monkeypatch.setattr(launch, "INTERPRETED", False)
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET is not set"):
        channel_reduce(x.cpu(), backend="triton")
