from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv import topk_merge
from fastconv.ops.topk_merge import empty_topk


def candidates(channels: int, count: int, device: str, seed: int = 0):
    """Few values, samples and positions, so that every level of the order decides somewhere."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high):
        return torch.randint(0, high, (channels, count), generator=generator)

    values = (draw(5) - 2.0) * 0.5
    values[draw(19) == 0] = torch.nan
    values[draw(19) == 0] = -torch.inf
    values[draw(5) == 0] = -0.0
    samples = torch.where(draw(13) == 0, -1, draw(3) + 2**33)
    return values.to(device), samples.to(device), (draw(3) + 2**32).to(device)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("channels", "slots", "count"), [(3, 9, 64), (1, 1, 1), (2, 5, 0), (2, 200, 33)]
)
def test_equals_reference(channels, slots, count, largest, device):
    old = candidates(channels, slots, device, seed=1)
    new = candidates(channels, count, device, seed=2)
    got = topk_merge(*old, *new, largest=largest, backend="triton")
    wanted = topk_merge(*old, *new, largest=largest, backend="reference")
    for name, a, b in zip(got._fields, got, wanted, strict=True):
        assert torch.equal(a.nan_to_num(7e7), b.nan_to_num(7e7)), name


def test_split_into_calls_does_not_matter(device):
    values, _, positions = candidates(4, 60, device)
    samples = torch.arange(60, device=device).expand(4, 60)
    whole = topk_merge(*empty_topk(4, 7, device)[:3], values, samples, positions, backend="triton")
    state = empty_topk(4, 7, device)
    for part in torch.randperm(60).to(device).split(17):
        new = (t[:, part] for t in (values, samples, positions))
        state = topk_merge(*state[:3], *new, backend="triton")
    for a, b in zip(whole[:3], state[:3], strict=True):
        assert torch.equal(a.nan_to_num(7e7), b.nan_to_num(7e7))
