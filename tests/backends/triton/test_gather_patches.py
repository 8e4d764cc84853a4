from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv import gather_patches

DTYPES = [torch.uint8, torch.bool, torch.bfloat16, torch.float32, torch.float64, torch.complex64]


def cropped(shape, start, size, dtype, device, *, strided=False):
    x = torch.randint(0, 250, shape, device=device).to(dtype)
    if strided:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)[..., ::2]
    start = torch.tensor(start, device=device)
    index = torch.arange(len(start), device=device).flip(0) % shape[0]
    got = gather_patches(x, index, start, size, backend="triton")
    return got, gather_patches(x, index, start, size, backend="reference")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype, device):
    got, wanted = cropped((2, 3, 7, 9), [[-2, 3], [0, 0], [5, 7]], (4, 5), dtype, device)
    assert got.dtype == dtype
    assert torch.equal(got, wanted)


@pytest.mark.parametrize(
    ("shape", "start", "size"),
    [
        ((3, 1, 17), [[-9], [3], [16], [40]], 5),
        ((2, 17, 5, 21), [[1, -7], [4, 5]], (9, 11)),
        ((2, 3, 4, 5, 7), [[-1, 2, 3], [0, 0, -20], [2, 2, 2]], (3, 2, 4)),
    ],
)
def test_ranks_and_boxes_outside(shape, start, size, device):
    for strided in (False, True):
        got, wanted = cropped(shape, start, size, torch.float32, device, strided=strided)
        assert torch.equal(got, wanted)


def test_no_patches(device):
    none = torch.empty((0, 2), dtype=torch.int64, device=device)
    x = torch.zeros(1, 2, 4, 4, device=device)
    assert gather_patches(x, none[:, 0], none, 3, backend="triton").shape == (0, 2, 3, 3)
