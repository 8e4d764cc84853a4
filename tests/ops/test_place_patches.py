"""place_patches: every implementation against slices, and the slots that it must leave alone."""

from __future__ import annotations

import pytest
import torch

from fastconv import dispatch
from fastconv.backends.reference.shrink_colours import colours
from fastconv.ops.place_patches import place_patches

BACKENDS = [name for name in ("cpu", "reference") if not isinstance(dispatch.load(name), str)]


def wanted(x, index, start, slot, out):
    """By slicing a padded copy."""
    pad, size = 50, out.shape[2:]
    padded = torch.nn.functional.pad(x, (pad,) * 2 * len(size))
    out = out.clone()
    for m, to in enumerate(slot.tolist()):
        if to >= 0:
            box = [slice(s + pad, s + pad + n) for s, n in zip(start[m], size, strict=True)]
            out[to] = padded[(index[m], slice(None), *box)]
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("shape", "size"), [((3, 2, 17), (5,)), ((4, 3, 9, 7), (4, 11)), ((2, 5, 4, 5, 6), (3, 2, 4))]
)
def test_only_the_slots_named_are_written(shape, size, backend):
    generator = torch.Generator().manual_seed(len(shape))
    x = torch.randn(shape, generator=generator)
    index = torch.randint(0, shape[0], (6,), generator=generator)
    start = torch.randint(-6, 9, (6, len(size)), generator=generator)
    slot = torch.tensor([3, -1, 0, 6, -1, 5])
    index[1], start[4] = -7, 10**6  # of patches that are not cut
    out = torch.full((8, shape[1], *size), torch.nan)
    expected = wanted(x, index, start, slot, out)
    run = dispatch.load(backend).KERNELS["place_patches"].run
    run(x, index, start, slot, None, None, out)
    assert torch.equal(out.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_colours(backend, channels, channels_last):
    x = torch.randn(2, channels, 9, 8) * 2
    x[0, 0, 4, :4] = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0])
    x[1, 0] = torch.arange(72).view(9, 8) / 255 / 2  # halves: rounded to even
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    index, start = torch.tensor([0, 1, 1]), torch.tensor([[-2, 3], [0, 0], [7, 7]])
    cropped = torch.zeros(3, channels, 5, 6)
    cropped = wanted(x, index, start, torch.arange(3), cropped)
    low, scale = torch.full((channels,), -0.25), torch.full((channels,), 255 / 1.75)
    expected = colours(cropped, low, scale)
    out = torch.full((4, 5, 6, 3), 99, dtype=torch.uint8)
    run = dispatch.load(backend).KERNELS["place_patches"].run
    run(x, index, start, torch.tensor([2, 0, -1]), low, scale, out)
    assert torch.equal(out[2], expected[0]) and torch.equal(out[0], expected[1])
    assert (out[1] == 99).all() and (out[3] == 99).all()


def test_chosen_by_device():
    out, zero = torch.zeros(1, 1, 2), torch.zeros(1, 1).long()
    place_patches(torch.ones(1, 1, 2), zero[0], zero, zero[0], out)
    assert out.all()
