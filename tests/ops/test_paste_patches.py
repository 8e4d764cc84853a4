"""paste_patches: every implementation gives inputs back from patches cut out of them."""

from __future__ import annotations

import itertools

import pytest
import torch

from fastconv import dispatch
from fastconv.ops.paste_patches import paste_patches

BACKENDS = [name for name in ("cpu", "reference") if not isinstance(dispatch.load(name), str)]


def by_points(patches, index, start, inputs, known):
    for m, row in enumerate(index.tolist()):
        for point in itertools.product(*map(range, patches.shape[2:])):
            at = tuple(s + p for s, p in zip(start[m].tolist(), point, strict=True))
            inside = all(0 <= a < n for a, n in zip(at, known.shape[1:], strict=True))
            if inside and not known[(row, *at)]:
                inputs[(row, slice(None), *at)] = patches[(m, slice(None), *point)]
                known[(row, *at)] = True


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("channels", "extent", "size"),
    [
        (2, (17,), (5,)),
        (3, (9, 7), (4, 11)),
        (1, (4, 5, 6), (3, 2, 4)),
        (3, (9, 7), (1, 1)),  # whose strides say nothing
        (4, (1, 1), (6, 9)),
    ],
)
def test_the_first_patch_that_shows_a_point_decides(
    backend, channels, extent, size, dtype, channels_last
):
    generator = torch.Generator().manual_seed(len(extent))
    patches = torch.randint(1, 256, (12, channels, *size), generator=generator).to(dtype)
    inputs = torch.zeros(4, channels, *extent, dtype=dtype)
    if channels_last:
        patches, inputs = (t.movedim(1, -1).contiguous().movedim(-1, 1) for t in (patches, inputs))
    index = torch.randint(0, 3, (12,), generator=generator)  # no patch is of the last one
    start = torch.randint(-4, 8, (12, len(size)), generator=generator)
    known = torch.rand(4, *extent, generator=generator) < 0.2
    expected, all_known = inputs.clone(), known.clone()
    by_points(patches, index, start, expected, all_known)
    run = dispatch.load(backend).KERNELS["paste_patches"].run
    run(patches, index, start, inputs, known)
    assert torch.equal(inputs, expected) and torch.equal(known, all_known)
    assert expected.any() and not inputs[3].any()


def test_chosen_by_device():
    inputs, known = torch.zeros(1, 1, 3), torch.zeros(1, 3, dtype=torch.bool)
    zero = torch.zeros(1, dtype=torch.int64)
    paste_patches(torch.ones(1, 1, 2), zero, zero[None] + 1, inputs, known)
    assert inputs.tolist() == [[[0, 1, 1]]] and known.tolist() == [[False, True, True]]
