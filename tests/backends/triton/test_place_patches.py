from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv.backends import reference
from fastconv.backends.triton import place_patches


@pytest.mark.parametrize(
    ("shape", "size", "colours"),
    [
        ((3, 2, 17), (5,), False),
        ((4, 3, 9, 7), (4, 11), False),
        ((2, 5, 4, 5, 6), (3, 2, 4), False),
        ((3, 1, 9, 8), (5, 6), True),
        ((3, 3, 40, 41), (23, 21), True),
    ],
)
def test_same_bits_as_the_reference(shape, size, colours, device):
    generator = torch.Generator().manual_seed(len(shape))
    x = torch.randn(shape, generator=generator).to(device)
    x.view(-1)[:5] = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e30])
    index = torch.randint(0, shape[0], (5,), generator=generator).to(device)
    start = torch.randint(-6, 5, (5, len(size)), generator=generator).to(device)
    slot = torch.tensor([3, -1, 0, 6, 5], device=device)
    index[1], start[1] = 99, -(10**9)  # of the patch that is not cut
    affine = (None, None)
    shape_out, dtype = (8, shape[1], *size), torch.float32
    if colours:
        affine = tuple(torch.linspace(a, 50, shape[1], device=device) for a in (-1.0, 60.0))
        shape_out, dtype = (8, *size, 3), torch.uint8
    got, wanted = (torch.full(shape_out, 77, dtype=dtype, device=device) for _ in range(2))
    place_patches.run(x, index, start, slot, *affine, got)
    reference.KERNELS["place_patches"].run(x, index, start, slot, *affine, wanted)
    assert torch.equal(got.float().nan_to_num(7e7), wanted.float().nan_to_num(7e7))
    assert (got[[1, 2, 4, 7]] == 77).all()


def test_rows_that_do_not_exist_give_zeros(device):
    x = torch.ones(2, 1, 4, device=device)
    index, start = torch.tensor([-1, 2, 1]), torch.zeros(3, 1).long()
    out = torch.full((3, 1, 4), 5.0, device=device)
    place_patches.run(x, index.to(device), start.to(device), None, None, None, out)
    assert out[:, 0].tolist() == [[0.0] * 4, [0.0] * 4, [1.0] * 4]
