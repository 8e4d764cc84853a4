"""shrink_colours: every implementation against means of slices."""

from __future__ import annotations

import pytest
import torch

from fastconv import dispatch
from fastconv.ops.shrink_colours import shrink_colours

BACKENDS = [name for name in ("cpu", "reference") if not isinstance(dispatch.load(name), str)]


def by_slices(x, factor, low, scale):
    """In float64, not yet rounded."""
    x, shown = x.double(), [0, 1, 2] if x.shape[1] == 3 else [0, 0, 0]
    rows = [
        torch.stack([part.mean((2, 3)) for part in band.split(factor, 3)], -1)
        for band in x.split(factor, 2)
    ]
    means = torch.stack(rows, 2)  # [N, C, h, w]
    colours = ((means - low.view(-1, 1, 1)) * scale.view(-1, 1, 1)).nan_to_num(0.0)
    return colours.clamp(0, 255)[:, shown].permute(0, 2, 3, 1)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("factor", "size"), [(2, (9, 8)), (3, (31, 17)), (5, (4, 6)), (7, (1, 50))]
)
def test_means_of_windows_as_colours(backend, channels, channels_last, factor, size):
    generator = torch.Generator().manual_seed(factor)
    x = torch.randn(5, channels, *size, generator=generator)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    low, scale = torch.linspace(-1, -0.5, channels), torch.linspace(100, 200, channels)
    run = dispatch.load(backend).KERNELS["shrink_colours"].run
    found = run(x, factor, low, scale)
    expected = by_slices(x, factor, low, scale)
    assert found.dtype == torch.uint8 and found.shape == expected.shape and found.is_contiguous()
    assert (found - expected).abs().max() < 0.501
    assert torch.equal(
        found, dispatch.load("reference").KERNELS["shrink_colours"].run(x, factor, low, scale)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite(backend):
    x = torch.ones(1, 3, 2, 6)
    x[0, :, 0, 0], x[0, :, 0, 2], x[0, :, 0, 4] = torch.nan, torch.inf, -torch.inf
    run = dispatch.load(backend).KERNELS["shrink_colours"].run
    found = run(x, 2, torch.zeros(3), torch.full((3,), 100.0))
    assert found[0, 0].tolist() == [[0] * 3, [255] * 3, [0] * 3]


def test_chosen_by_device():
    found = shrink_colours(torch.ones(1, 1, 4, 4), 2, torch.zeros(1), torch.full((1,), 7.0))
    assert (found == 7).all() and found.shape == (1, 2, 2, 3)
