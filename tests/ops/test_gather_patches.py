"""gather_patches: every backend against slicing a padded copy."""

from __future__ import annotations

import pytest
import torch
from helpers.backend_cases import every_backend, layouts, needs_native, threads

from fastconv import gather_patches
from fastconv.errors import InputError

both_backends = every_backend("gather_patches")
DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64,
    torch.uint8, torch.int64, torch.bool,
)  # fmt: skip


def sliced(x, index, start, size):
    """The definition: pad by enough zeros, then slice."""
    margin = max(*size, *(abs(int(s)) for s in start.flatten())) + max(x.shape[2:])
    padded = x.new_zeros(*x.shape[:2], *(extent + 2 * margin for extent in x.shape[2:]))
    inside = tuple(slice(margin, margin + extent) for extent in x.shape[2:])
    padded[(..., *inside)] = x
    out = x.new_empty((len(index), x.shape[1], *size))
    for m, (sample, corner) in enumerate(zip(index, start, strict=True)):
        low = [margin + int(a) for a in corner]
        box = tuple(slice(a, a + s) for a, s in zip(low, size, strict=True))
        out[m] = padded[(sample, slice(None), *box)]
    return out


@both_backends
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("spatial", "size"), [((9,), (4,)), ((7, 9), (3, 5)), ((5, 6, 4), (2, 7, 3))]
)
def test_agrees_with_slicing(spatial, size, dtype, device, backend):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(1, 100, (4, 3, *spatial), generator=generator).to(dtype).to(device)
    index = torch.randint(0, 4, (17,), generator=generator)
    start = torch.randint(-12, 12, (17, len(spatial)), generator=generator)
    want = sliced(x, index, start, size)
    for _, laid in layouts(x):
        got = gather_patches(laid, index.to(device), start.to(device), size, backend=backend)
        assert got.is_contiguous()
        assert got.dtype == dtype
        assert torch.equal(got, want)


@both_backends
def test_one_size_for_all_dimensions_and_other_strides(device, backend):
    x = torch.randn(6, 5, 20, 20, device=device)[::2, 1:4, :, ::2]
    index = torch.tensor([2, 0, 2], device=device)
    start = torch.tensor([[18, 8], [-2, -1], [3, 3]], device=device)
    got = gather_patches(x, index, start, 4, backend=backend)
    assert torch.equal(got, sliced(x, index, start, (4, 4)))


@both_backends
def test_boxes_far_outside_are_zero(device, backend):
    x = torch.ones(1, 2, 5, 5, device=device)
    start = torch.tensor([[1000, 0], [0, -1000], [-(2**40), 2**40]], device=device)
    index = torch.zeros(3, dtype=torch.int64, device=device)
    assert not gather_patches(x, index, start, 3, backend=backend).any()


@both_backends
def test_no_patches_and_no_channels(device, backend):
    index = torch.zeros(0, dtype=torch.int64, device=device)
    start = torch.zeros(0, 2, dtype=torch.int64, device=device)
    x = torch.ones(1, 2, 5, 5, device=device)
    assert gather_patches(x, index, start, 3, backend=backend).shape == (0, 2, 3, 3)
    assert gather_patches(x[:0], index, start, 3, backend=backend).shape == (0, 2, 3, 3)
    one = torch.zeros(1, dtype=torch.int64, device=device)
    corner = torch.zeros(1, 2, dtype=torch.int64, device=device)
    assert gather_patches(x[:, :0], one, corner, 3, backend=backend).shape == (1, 0, 3, 3)


@needs_native
@pytest.mark.parametrize("count", [1, 2])
def test_every_value_is_written(count, monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    x = torch.randn(3, 8, 40, 40)
    index = torch.arange(300) % 3
    start = torch.stack([torch.arange(300) % 60 - 10, torch.arange(300) % 53 - 8], 1)
    with threads(count):
        got = gather_patches(x, index, start, (16, 9), backend="cpu")
    assert torch.equal(got, gather_patches(x, index, start, (16, 9), backend="reference"))


X, INDEX, START = torch.zeros(2, 3, 5, 5), torch.tensor([0]), torch.tensor([[0, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": torch.zeros(2, 3)}, r"1 to 3 spatial dimensions, got \[2, 3\]"),
        ({"size": (2, 2, 2)}, r"size must be 2 positive ints, got \[2, 2, 2\]"),
        ({"size": 0}, r"size must be 2 positive ints, got \[0, 0\]"),
        ({"index": INDEX.int()}, r"index must be int64 \[M\], got torch.int32 \[1\]"),
        ({"index": torch.tensor([2])}, "index reaches from 2 to 2, the batch has 2 samples"),
        ({"index": torch.tensor([-1])}, "index reaches from -1 to -1"),
        ({"start": START.float()}, r"start must be int64 \[1, 2\], got torch.float32 \[1, 2\]"),
        ({"start": torch.tensor([[0]])}, r"start must be int64 \[1, 2\], got torch.int64 \[1, 1\]"),
        ({"index": INDEX.to("meta")}, "input is on cpu, index on meta, start on cpu"),
    ],
)
def test_bad_input(change, message):
    arguments = {"input": X, "index": INDEX, "start": START, "size": 3, **change}
    with pytest.raises(InputError, match=message):
        gather_patches(**arguments)
