"""A whole run on Triton's kernels, which the interpreter runs on CPU tensors as on a GPU's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.networks import images, network

pytest.importorskip("triton", reason="triton is not installed")

import fastconv
from fastconv import dispatch
from fastconv.measure import candidates as listing
from fastconv.run import layer_sink
from fastconv.run import plan as planner


@pytest.fixture
def on_triton(monkeypatch, device):
    """Makes later runs use Triton's kernels, in the interpreter where there is no GPU."""

    def use():
        if device == "cpu":
            monkeypatch.setattr(dispatch, "_BEST_FIRST", {"cpu": ("triton", "reference")})

    return use


@pytest.mark.parametrize("fused", [False, True])
def test_a_run_agrees_with_the_cpu(fused, tmp_path, device, monkeypatch, on_triton):
    model, data = network(), images(5)
    options = {"batch_size": 2, "layers": ["0", "5"], "topk": 3, "samples": True}
    options["progress"] = False
    monkeypatch.setattr(planner, "_pays", lambda target, options: fused and bool(target.fusion))
    monkeypatch.setattr(planner, "_pays_on_gpu", lambda target, options, device: fused)
    monkeypatch.setattr(planner, "_in_place", lambda target, options, place: False)
    cpu = fastconv.extract(model, data, tmp_path / "cpu.h5", device="cpu", **options)
    on_triton()
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


@pytest.fixture
def whole_activations(monkeypatch):
    """The layers whose peaks were taken from the whole activation, in order."""
    found = []

    def noted(value, info, *arguments, **options):
        found.append(info.name)
        return whole(value, info, *arguments, **options)

    whole = layer_sink.whole_peaks
    monkeypatch.setattr(layer_sink, "whole_peaks", noted)
    return found


@pytest.mark.parametrize(
    "case",
    [
        ("conv", "both", "0"),
        pytest.param(("act", "largest", "5"), marks=pytest.mark.slow),
    ],
)
def test_hits_from_lists_are_those_of_the_activation(
    case, tmp_path, device, monkeypatch, on_triton, whole_activations
):
    (stage, order, layer), model, data = case, network(), images(11)
    with torch.no_grad():
        model[0].weight[1:3] = 0  # dead filters: every position ties
    options = {"batch_size": 4, "layers": [layer], "topk": 7, "hits_per_sample": 3}
    options |= {"stage": stage, "order": order, "progress": False}
    monkeypatch.setattr(planner, "_pays", lambda target, options: False)
    whole = fastconv.extract(model, data, tmp_path / "whole.h5", device="cpu", **options)
    on_triton()
    whole_activations.clear()
    lists = fastconv.extract(model, data, tmp_path / "lists.h5", device=device, **options)
    sets = 2 if order == "both" else 1
    assert whole_activations == [layer] * 2 * sets  # until 7 samples have been seen
    monkeypatch.setattr(listing, "LEAST", 1)
    monkeypatch.setattr(listing, "MOST", 1)
    whole_activations.clear()
    short = fastconv.extract(model, data, tmp_path / "short.h5", device=device, **options)
    assert len(whole_activations) > 2 * sets  # some lists were too short, and were made up for
    for name in whole.layers:
        for hits in ("topk", "bottomk")[:sets]:
            got, again, wanted = (getattr(run[name], hits) for run in (lists, short, whole))
            for field in ("values", "sample", "position", "box"):
                np.testing.assert_array_equal(getattr(got, field), getattr(again, field))
                if stage == "conv":
                    np.testing.assert_array_equal(getattr(got, field), getattr(wanted, field))
            np.testing.assert_allclose(got.values, wanted.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(lists[name].patches[()], short[name].patches[()])
        for field in ("count", "mean", "max"):  # of every sample once
            np.testing.assert_allclose(
                short[name].stats[field], whole[name].stats[field], rtol=1e-5, atol=1e-6
            )


@pytest.mark.slow
def test_a_fused_convolution_lists_hits_and_writes_nothing(
    tmp_path, device, monkeypatch, on_triton, whole_activations
):
    model, data = network(), images(13)
    options = {"batch_size": 4, "layers": ["5"], "topk": 7, "hits_per_sample": 3}
    options |= {"progress": False, "device": device}
    monkeypatch.setattr(planner, "_pays", lambda target, options: True)
    monkeypatch.setattr(planner, "_pays_on_gpu", lambda target, options, device: True)
    written = []
    run_fused = layer_sink.run_fused

    def noted(*arguments, return_activation, **given):
        written.append(return_activation)
        return run_fused(*arguments, return_activation=return_activation, **given)

    monkeypatch.setattr(layer_sink, "run_fused", noted)
    on_triton()
    lists = fastconv.extract(model, data, tmp_path / "lists.h5", **options)
    assert written == [True, True, False, False]
    monkeypatch.setattr(listing, "LEAST", 1)
    monkeypatch.setattr(listing, "MOST", 1)
    whole_activations.clear()
    short = fastconv.extract(model, data, tmp_path / "short.h5", **options)
    assert len(whole_activations) > 2
    kernels = dispatch.load("triton").KERNELS
    without = kernels["conv_reduce"]._replace(takes=frozenset({"post_ops"}))
    monkeypatch.setitem(kernels, "conv_reduce", without)
    whole = fastconv.extract(model, data, tmp_path / "whole.h5", **options)
    wanted = whole["5"].topk
    for run in (lists, short):
        for field in ("values", "sample", "position", "box"):
            np.testing.assert_array_equal(getattr(run["5"].topk, field), getattr(wanted, field))
        np.testing.assert_array_equal(run["5"].patches[()], whole["5"].patches[()])
        np.testing.assert_array_equal(run["5"].stats["count"], whole["5"].stats["count"])


def test_a_float16_model_runs_fused(tmp_path, device, monkeypatch, on_triton):
    """What is measured is the value before it is rounded for the network.

    In bfloat16 likewise, but that the interpreter truncates where a GPU rounds.
    """
    model, data = network().half(), images(5).half()
    options = {"batch_size": 2, "layers": ["0", "5"], "topk": 3, "progress": False}
    monkeypatch.setattr(planner, "_pays_on_gpu", lambda target, options, device: False)
    rounded = fastconv.extract(model, data, tmp_path / "apart.h5", device=device, **options)
    monkeypatch.setattr(planner, "_pays", lambda target, options: True)
    monkeypatch.setattr(planner, "_pays_on_gpu", lambda target, options, device: True)
    on_triton()
    fused = fastconv.extract(model, data, tmp_path / "fused.h5", device=device, **options)
    for name in fused.layers:
        assert rounded[name].info.measured_by == "channel_reduce"
        assert fused[name].info.measured_by == "conv_reduce"
        values = torch.from_numpy(fused[name].topk.values)
        assert not torch.equal(values, values.half().float())
        np.testing.assert_allclose(values, rounded[name].topk.values, rtol=2**-8, atol=2**-8)
    report = fastconv.verify(tmp_path / "fused.h5", model, data, device=device)
    assert report.ok, str(report)
