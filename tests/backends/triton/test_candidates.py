"""Values above a threshold, listed by the kernels, give the peaks of the whole activation."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv import conv_reduce
from fastconv.backends.triton import KERNELS
from fastconv.format.result import LayerInfo
from fastconv.geometry import FieldMap
from fastconv.measure.peaks import listed_peaks, sample_peaks
from fastconv.reduction import CandidateLists

# input shape, C_out, kernel, groups, channels_last: kernel A, B, direct
CONVOLUTIONS = {
    "tma": ((3, 8, 7, 9), 5, (3, 3), 1, True),
    "tma_samples": ((5, 8, 3, 3), 3, (1, 1), 1, True),
    "pointer": ((3, 5, 7, 9), 18, (3, 3), 1, False),
    "pointer_1d": ((2, 3, 41), 4, (5,), 1, False),
    "direct": ((3, 6, 5, 8), 6, (3, 3), 6, False),
}


def layer(channels: int, size: tuple[int, ...], extent: int = 5) -> LayerInfo:
    fields = tuple(FieldMap.affine(1, 0, extent) for _ in size)
    return LayerInfo("x", "x", "Conv", "conv", channels, size, fields, "exact")


def assert_peaks(
    lists: CandidateLists, value: torch.Tensor, *, largest: bool, count: int = 3
) -> None:
    """Those of the full activation that reach the threshold; the others are missing."""
    info = layer(value.shape[1], tuple(value.shape[2:]))
    wanted, at = sample_peaks(value, info, count, largest=largest)
    limit = lists.threshold[:, None]
    below = ~(wanted >= limit if largest else wanted <= limit)
    wanted, at = wanted.masked_fill(below, torch.nan), at.masked_fill(below, -1)
    got, places = listed_peaks(lists, len(value), info, count)
    assert torch.equal(places, at)
    assert torch.equal(got.nan_to_num(7e7), wanted.nan_to_num(7e7))
    assert (places >= 0).any()


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 9, 11), (2, 17, 41), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("layout", ["first", "last"])
def test_channel_reduce(shape, layout, largest, device):
    generator = torch.Generator().manual_seed(len(shape))
    x = torch.randint(-9, 10, shape, generator=generator).to(device) / 4  # ties everywhere
    x.view(-1)[::17] = torch.nan
    x.view(-1)[1::23] = torch.inf
    x.view(-1)[2::23] = -0.0
    scale = torch.linspace(-1, 2, shape[1], device=device)
    value = (x * scale.view(-1, *(1,) * (len(shape) - 2))).float()
    finite = value.masked_fill(~value.isfinite(), 0)
    threshold = finite.transpose(0, 1).flatten(1).quantile(0.8 if largest else 0.2, dim=1)
    threshold[1] = torch.inf if largest else -torch.inf  # nothing reaches it
    lists = CandidateLists.create(threshold, 200, largest=largest)
    if layout == "last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    got = KERNELS["channel_reduce"].run(x, scale, None, None, None, lists)
    plain = KERNELS["channel_reduce"].run(x, scale, None, None, None)
    assert all(torch.equal(a, b) for a, b in zip(got, plain, strict=True))
    assert lists.counts[1] == 0 and int(lists.counts.max()) <= 200
    assert_peaks(lists, value, largest=largest)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv_reduce(case, largest, device):
    shape, c_out, kernel, groups, last = CONVOLUTIONS[case]
    generator = torch.Generator().manual_seed(len(case))
    x = (torch.randint(-3, 4, shape, generator=generator) / 2).to(device).bfloat16()
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    weight = torch.randint(-3, 4, (c_out, shape[1] // groups, *kernel), generator=generator)
    weight = weight.to(device).bfloat16()
    value = conv_reduce(
        x.float(), weight.float(), groups=groups, return_activation=True, backend="reference"
    ).activation
    threshold = value.transpose(0, 1).flatten(1).quantile(0.7 if largest else 0.3, dim=1)
    lists = CandidateLists.create(threshold, 100, largest=largest)
    rank = len(kernel)
    geometry = ([1] * rank, [0] * 2 * rank, [1] * rank, groups)
    nothing_else = {"scale": None, "shift": None, "activation": None, "histogram": None}
    KERNELS["conv_reduce"].run(
        x, weight, None, *geometry, **nothing_else, return_activation=False, candidates=lists
    )
    assert int(lists.counts.max()) <= 100
    assert_peaks(lists, value, largest=largest)


def test_overflow_is_told_and_writes_nothing_beyond(device):
    x = torch.arange(24.0, device=device).view(1, 2, 12)
    lists = CandidateLists.create(torch.tensor([4.0, 20.0], device=device), 4, largest=True)
    lists.values[1] = lists.places[1] = -5
    KERNELS["channel_reduce"].run(x, None, None, None, None, lists)
    assert lists.counts.tolist() == [8, 4]
    assert sorted(lists.values[1].tolist()) == [20.0, 21.0, 22.0, 23.0]
    assert sorted(lists.places[1].tolist()) == [8, 9, 10, 11]
    assert set(lists.values[0].tolist()) < set(x[0, 0].tolist())
