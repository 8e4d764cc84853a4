"""The CUDA top-k, patches and candidate lists against sorting, slicing and the reference."""

from __future__ import annotations

import pytest
import torch
from helpers.backend_cases import layouts

from fastconv.backends import reference
from fastconv.reduction import CandidateLists

LARGEST = True


def entries(channels, count, seed, device):
    """Ties in value, sample and position, non-finite values and empty slots."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, (channels, count), generator=generator).float() / 2
    values[torch.rand(values.shape, generator=generator) < 0.1] = torch.nan
    values[torch.rand(values.shape, generator=generator) < 0.1] = torch.inf
    values[torch.rand(values.shape, generator=generator) < 0.1] = -0.0
    samples = torch.randint(-1, 9, values.shape, generator=generator)
    positions = torch.randint(0, 9, values.shape, generator=generator)
    return [t.to(device) for t in (values, samples, positions)]


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("channels", "k", "count"),
    [(1, 1, 1), (3, 9, 4), (17, 5, 64), (5, 3, 0), (2, 70, 90), (1, 5, 2600), (33, 1, 300)],
)
def test_topk_equals_sorting(channels, k, count, largest, kernels, device):
    top = [torch.full((channels, k), v, device=device) for v in (torch.nan, -1, -1)]
    for step in range(3):
        new = entries(channels, count, step, device)
        wanted = reference.KERNELS["topk_merge"].run(*top, *new, largest)
        got = kernels["topk_merge"].run(*top, *new, largest)
        for a, b in zip(got, wanted, strict=True):
            assert torch.equal(a.nan_to_num(7e7), b.nan_to_num(7e7))
        top = list(got[:3])


def test_topk_takes_running_entries_in_any_order(kernels, device):
    old, new = entries(9, 6, 1, device), entries(9, 30, 2, device)
    wanted = reference.KERNELS["topk_merge"].run(*old, *new, LARGEST)
    got = kernels["topk_merge"].run(*old, *new, LARGEST)
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a.nan_to_num(7e7), b.nan_to_num(7e7))


DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.uint8, torch.bool)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("spatial", "size"), [((9,), (4,)), ((7, 9), (3, 5)), ((5, 6, 4), (2, 7, 3))]
)
def test_patches_equal_slices(spatial, size, dtype, kernels, device):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 100, (4, 3, *spatial), generator=generator).to(dtype).to(device)
    index = torch.randint(0, 4, (17,), generator=generator).to(device)
    start = torch.randint(-12, 12, (17, len(spatial)), generator=generator).to(device)
    start[0] = -(2**40)
    wanted = reference.KERNELS["gather_patches"].run(x, index, start, size)
    for _, laid in layouts(x):
        assert torch.equal(kernels["gather_patches"].run(laid, index, start, size), wanted)
    assert kernels["gather_patches"].run(x[:0], index[:0], start[:0], size).shape[0] == 0


def test_rows_that_do_not_exist_give_zeros(kernels, device):
    x = torch.ones(2, 1, 4, device=device)
    index, start = torch.tensor([-1, 2, 1], device=device), torch.zeros(3, 1).long().to(device)
    got = kernels["gather_patches"].run(x, index, start, (4,))
    assert got[:, 0].tolist() == [[0.0] * 4, [0.0] * 4, [1.0] * 4]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_colours_go_into_their_slots_alone(channels, dtype, kernels, device):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (3, channels, 30, 31), generator=generator).to(dtype).to(device)
    if dtype == torch.float32:
        x.view(-1)[:4] = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0], device=device)
    index, slot = torch.tensor([0, 9, 2, 1, 0]), torch.tensor([3, -1, 0, 6, 5])
    start = torch.tensor([[-2, -3], [0, 0], [20, 25], [5, 5], [0, 0]])
    low, scale = torch.linspace(-1, 9, channels), torch.linspace(0.5, 1.5, channels)
    index, slot, start, low, scale = (t.to(device) for t in (index, slot, start, low, scale))
    got, wanted = (torch.full((8, 13, 11, 3), 77, dtype=torch.uint8, device=device) for _ in "ab")
    assert kernels["place_patches"].supports(x, index, start, slot, low, scale, got) is None
    kernels["place_patches"].run(x, index, start, slot, low, scale, got)
    reference.KERNELS["place_patches"].run(x.float(), index, start, slot, low, scale, wanted)
    assert torch.equal(got, wanted)
    assert (got[[1, 2, 4, 7]] == 77).all()


def listed(lists):
    """Per channel the sorted (place, value) pairs of a complete list."""
    counts = lists.counts.tolist()
    assert max(counts) <= lists.values.shape[1]
    return [
        sorted(zip(lists.places[c, :n].tolist(), lists.values[c, :n].tolist(), strict=True))
        for c, n in enumerate(counts)
    ]


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("op", ["channel_reduce", "conv_reduce"])
def test_values_that_reach_a_threshold_are_listed(op, largest, kernels, device):
    x = torch.randint(-9, 10, (3, 9, 8, 11), generator=torch.Generator().manual_seed(3)) / 4
    x.view(-1)[::17], x.view(-1)[1::23], x.view(-1)[2::23] = torch.nan, torch.inf, -0.0
    x = x.to(device)
    weight = torch.zeros(9, 1, 3, 3, device=device)
    weight[:, :, 1, 1] = 1.0  # the convolution gives x again, but for NaN around what is not finite
    if op == "conv_reduce":
        x = x.nan_to_num(0.25, 1.0, -1.0)
    threshold = torch.full((9,), 1.5 if largest else -1.5, device=device)
    threshold[1] = torch.inf if largest else -torch.inf
    value = x.transpose(0, 1).flatten(1)  # [C, N * positions]
    hit = value >= threshold[:, None] if largest else value <= threshold[:, None]
    hit &= value.isfinite()
    for _, laid in layouts(x):
        lists = CandidateLists.create(threshold, 264, largest=largest)
        if op == "conv_reduce":
            given = (weight, None, [1, 1], [1, 1, 1, 1], [1, 1], 9, None, None, None, None, False)
            kernels[op].run(laid, *given, candidates=lists)
        else:
            kernels[op].run(laid, None, None, None, None, lists)
        for channel, found in enumerate(listed(lists)):
            places = hit[channel].nonzero()[:, 0].tolist()
            assert found == [(p, value[channel, p].item()) for p in places]
    assert hit.any()


def test_a_list_that_is_too_short_is_told(kernels, device):
    x = torch.arange(24.0, device=device).view(1, 2, 12)
    lists = CandidateLists.create(torch.tensor([4.0, 20.0], device=device), 4, largest=True)
    kernels["channel_reduce"].run(x, None, None, None, None, lists)
    assert lists.counts.tolist() == [8, 4]
    assert set(lists.values[0].tolist()) < set(x[0, 0].tolist())
