"""A whole run on Triton's kernels, which the interpreter runs on CPU tensors as on a GPU's."""

from __future__ import annotations

import numpy as np
import pytest
from networks import images, network

pytest.importorskip("triton", reason="triton is not installed")

import fastconv
from fastconv import dispatch, planner


@pytest.mark.parametrize("fused", [False, True])
def test_a_run_agrees_with_the_cpu(fused, tmp_path, device, monkeypatch):
    model, data = network(), images(5)
    options = {"batch_size": 2, "layers": ["0", "5"], "topk": 3, "samples": True}
    options["progress"] = False
    monkeypatch.setattr(planner, "_pays", lambda target, options: fused and bool(target.fusion))
    monkeypatch.setattr(planner, "_pays_on_gpu", lambda target, options, device: fused)
    cpu = fastconv.extract(model, data, tmp_path / "cpu.h5", device="cpu", **options)
    if device == "cpu":
        usable = {op: ["cpu"] for op in dispatch.OPS}  # what the plan looks at
        monkeypatch.setattr(planner.dispatch, "backends", lambda place: usable)
        monkeypatch.setattr(dispatch, "_BEST_FIRST", {"cpu": ("triton",)})
    triton = fastconv.extract(model, data, tmp_path / "triton.h5", device=device, **options)
    assert {triton[n].info.measured_by for n in triton.layers} >= (
        {"conv_reduce"} if fused else {"channel_reduce"}
    )
    rtol = 1e-4 if fused or device == "cuda" else 0  # the same activations: the same bits
    for name in cpu.layers:
        got, wanted = triton[name], cpu[name]
        for field, value in wanted.stats.items():
            exact = field in ("count", "nonfinite")
            np.testing.assert_allclose(
                got.stats[field], value, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5
            )
        np.testing.assert_allclose(got.topk.values, wanted.topk.values, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(got.samples.max, wanted.samples.max, rtol=rtol, atol=rtol)
        if rtol == 0:
            np.testing.assert_array_equal(got.topk.box, wanted.topk.box)
            np.testing.assert_array_equal(got.patches[()], wanted.patches[()])
            np.testing.assert_array_equal(got.quantile([0.1, 0.5]), wanted.quantile([0.1, 0.5]))
