from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv.backends import reference
from fastconv.backends.triton import exact_add
from fastconv.measure import exact_sum

MOST = torch.finfo(torch.float64).max


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (70, 17)])
def test_same_limbs_as_the_reference(shape, device):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64, generator=generator)
    values *= torch.exp2(torch.randint(-1074, 1020, shape, generator=generator).double())
    special = torch.tensor([5e-324, -MOST, MOST, -0.0, 0.0, 2**-1022, -1e-310], dtype=values.dtype)
    values.view(-1)[:7] = special[: values.numel()]
    values = values.to(device)
    sums, wanted = (exact_sum.empty_sums(shape[1]).to(device) for _ in range(2))
    for _ in range(2):
        exact_add.run(sums, values)
        reference.KERNELS["exact_add"].run(wanted, values)
    assert sums.any() and torch.equal(sums, wanted)


def test_no_values(device):
    sums = exact_sum.empty_sums(3).to(device)
    exact_add.run(sums, torch.empty(0, 3, dtype=torch.float64, device=device))
    assert not sums.any()
