"""A whole run on the CUDA kernels by name: what they have runs fused, the rest is read by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import fastconv
from fastconv import dispatch
from fastconv.backends import cuda
from fastconv.run import plan as planner


@pytest.fixture
def by_name(kernels, monkeypatch):
    """Lets the registry find the kernels, wherever they run."""
    monkeypatch.setattr(cuda, "unavailable", lambda: None)
    dispatch.load.cache_clear()
    yield
    dispatch.load.cache_clear()


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 5, 2, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 3, 3, groups=8),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("hits_per_sample", [1, 3])
def test_a_run_agrees_with_plain_torch(hits_per_sample, by_name, device, tmp_path, monkeypatch):
    for name in ("_pays", "_pays_on_gpu"):
        monkeypatch.setattr(planner, name, lambda target, *_, **__: target.fusion is not None)
    model, data = network(), torch.rand(9, 3, 23, 21)
    options = {"batch_size": 4, "topk": 3, "hits_per_sample": hits_per_sample, "stage": "act"}
    runs = {
        backend: fastconv.extract(
            model, data, tmp_path / f"{backend}.h5", device=device, backend=backend,
            progress=False, samples=True, **options,
        )
        for backend in ("cuda", "reference")
    }  # fmt: skip
    found, wanted = runs["cuda"], runs["reference"]
    ops = [found[name].info.measured_by for name in found.layers]
    assert ops == ["channel_reduce", "conv_reduce", "channel_reduce"]
    for name in found.layers:
        for field, value in wanted[name].stats.items():
            rtol = 0 if field in ("count", "nonfinite") else 1e-4
            np.testing.assert_allclose(found[name].stats[field], value, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(found[name].topk.values, wanted[name].topk.values, rtol=1e-5)
        np.testing.assert_array_equal(found[name].topk.sample, wanted[name].topk.sample)
    assert fastconv.verify(tmp_path / "cuda.h5", model, data, device=device)
