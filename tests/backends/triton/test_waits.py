"""No wrapper asks the device for data: kernels and memory of a batch are queued, nothing more."""

from __future__ import annotations

import sys

import pytest
import torch
from helpers.waits import Waits

pytest.importorskip("triton", reason="triton is not installed")

from fastconv.backends.triton import KERNELS

X = torch.randn(3, 8, 7, 9)
VECTOR = torch.ones(8)
BATCH = torch.zeros(3, dtype=torch.int64)
LIST = (torch.zeros(8, 4), torch.zeros(8, 4).long(), torch.zeros(8, 4).long())
CALLS = {
    "conv_reduce": (
        (X, torch.ones(8, 8, 3, 3), VECTOR, [1, 1], [1] * 4, [1, 1], 1)
        + (VECTOR, VECTOR, "relu", None, False)
    ),
    "channel_reduce": (X, VECTOR, VECTOR, "relu", None),
    "channel_normalize": (X, "instance", None, None, 1e-5),
    "topk_merge": (*LIST, *LIST, True),
    "gather_patches": (X, BATCH, BATCH.repeat(2, 1).T, [3, 3]),
    "place_patches": (
        X,
        BATCH,
        BATCH.repeat(2, 1).T,
        BATCH - 1,
        None,
        None,
        torch.ones(2, 8, 3, 3),
    ),
    "exact_add": (torch.zeros(8, 68, dtype=torch.int64), torch.ones(3, 8, dtype=torch.float64)),
}


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("op", KERNELS)
def test_no_wrapper_waits(op, layout, monkeypatch):
    started = []

    def queued(kernel, *arguments, **options):
        started.append(kernel)

    for name, module in list(sys.modules.items()):
        if name.startswith("fastconv.backends.triton.") and callable(vars(module).get("launch")):
            monkeypatch.setattr(module, "launch", queued)
    arguments = CALLS[op]
    if layout == "last" and arguments[0] is X:
        arguments = (X.contiguous(memory_format=torch.channels_last), *arguments[1:])
    with Waits() as waits:
        KERNELS[op].run(*arguments)
    assert waits.found == []
    assert len(started) >= 1
