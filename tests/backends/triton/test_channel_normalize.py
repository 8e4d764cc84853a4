from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv import channel_normalize

MODES = {
    "batchnorm": ("scale", "shift"),
    "zscore": ("mean", "var"),
    "minmax": ("min", "max"),
    "instance": (),
    "l1": (),
    "l2": (),
}


@pytest.mark.parametrize("layout", ["first", "last", "strided"])
@pytest.mark.parametrize("mode", MODES)
def test_equals_float64(mode, layout, device):
    x = torch.randn(3, 5, 11, 13, device=device) * 3 + 100
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = x.transpose(2, 3)[..., ::2]
    statistics = {name: torch.rand(5, device=device) + 0.5 for name in MODES[mode]}
    if mode == "minmax":
        statistics["max"] = statistics["min"] + torch.tensor([1.0, 0, 2, 3, 4], device=device)
    got = channel_normalize(x, mode, **statistics, backend="triton")
    wide = {name: value.double() for name, value in statistics.items()}
    wanted = channel_normalize(x.double(), mode, **wide, backend="reference")
    torch.testing.assert_close(got.double(), wanted, rtol=2e-6, atol=2e-4)
    assert got.dtype == x.dtype
    assert got.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 7), (1, 17, 3, 5, 2)])
def test_half_precision(shape, dtype, device):
    x = torch.randn(shape, device=device).to(dtype)
    for mode in ("instance", "l2"):
        got = channel_normalize(x, mode, backend="triton")
        wanted = channel_normalize(x, mode, backend="reference")
        torch.testing.assert_close(got, wanted)


def test_nan_spreads_within_its_channel_only(device):
    x = torch.randn(2, 3, 4, 4, device=device)
    x[1, 2, 0, 0] = torch.nan
    got = channel_normalize(x, "instance", backend="triton")
    assert got[1, 2].isnan().all()
    assert got.isnan().sum() == 16
