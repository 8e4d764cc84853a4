"""Which convolutions would run fused on a GPU: nothing here needs one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from fastconv import dispatch
from fastconv.backends import cuda
from fastconv.backends.cuda import limits
from fastconv.capture import plan_capture
from fastconv.run import gpu_cost
from fastconv.run import plan as planner
from fastconv.run.gpu_cost import Layer, fused_is_faster
from fastconv.run.options import Options

WIDE = Layer("tf32", 64, 256, (56, 56), (1, 1), (1, 1), 1, written=False, passes=0)
DEEP = Layer("tf32", 512, 512, (7, 7), (3, 3), (1, 1), 1, written=True, passes=0)
UNKNOWN = "NVIDIA Test 1"
GIVEN = {
    "stage": "act", "topk": 9, "hits_per_sample": 1, "order": "largest", "stats": True,
    "quantiles": True, "patches": True, "samples": False, "maps_dtype": "rounded",
    "batch_size": 8, "backend": "auto", "normalize": None, "dtype": None, "maps": None,
    "shard": None,
}  # fmt: skip


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Keep measured layers for a device of this name."""
    monkeypatch.setattr(gpu_cost, "file_of", lambda device: tmp_path / f"{device}.json")
    gpu_cost.measured.cache_clear()
    yield lambda *entries: (tmp_path / "Known.json").write_text(json.dumps(entries))
    gpu_cost.measured.cache_clear()


def entry(layer: Layer, **times: float) -> dict:
    shape = {k: getattr(layer, k) for k in ("math", "c_in", "c_out", "kernel", "groups")}
    return {**shape, "out_size": layer.out_size, "values": 256 * layer.values, **times}


def test_prediction(table):
    assert fused_is_faster(WIDE, UNKNOWN)  # nothing written: bound by memory otherwise
    assert not fused_is_faster(DEEP, UNKNOWN)  # bound by products, which cuDNN does faster
    assert not fused_is_faster(replace(DEEP, math="ieee"), UNKNOWN)
    shallow = replace(WIDE, c_in=16, written=True, passes=4)
    assert fused_is_faster(shallow, UNKNOWN)
    assert gpu_cost.basis(UNKNOWN) == "predicted: nothing was measured"


def test_what_was_measured_decides(table):
    table(
        entry(WIDE, fused=90, fused_written=100, conv=50, hook=30),
        entry(DEEP, fused=50, fused_written=60, conv=50, hook=20),
    )
    assert not fused_is_faster(WIDE, "Known")
    assert fused_is_faster(DEEP, "Known")
    assert fused_is_faster(replace(DEEP, c_in=256, out_size=(8, 8)), "Known")  # the nearest
    assert not fused_is_faster(replace(WIDE, c_out=128), "Known")
    assert fused_is_faster(replace(WIDE, passes=4), "Known")  # 4 passes over 822 MB are saved
    assert gpu_cost.basis("Known") == "measured on Known"


def test_the_plan_of_a_network(monkeypatch, table):
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 64, 1)
    )
    targets = plan_capture(model, torch.zeros(2, 3, 33, 33), stage="act")
    options = Options.create(length=9, **GIVEN)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: UNKNOWN)
    place = torch.device("cuda")
    ops = [t.info.measured_by for t in planner.plan_kernels(targets, options, place)]
    assert ops == ["conv_reduce", "conv_reduce"]
    layers = [gpu_cost.layer_of(t, written=True) for t in targets]
    assert [layer.products for layer in layers] == [27, 16]
    assert [layer.passes for layer in layers] == [4, 0]
    half = plan_capture(model.bfloat16(), torch.zeros(2, 3, 33, 33).bfloat16(), stage="act")
    assert {gpu_cost.layer_of(t, written=True).math for t in half} == {"half"}
    for several, op in ((1, "conv_reduce"), (2, "channel_reduce")):
        chosen = planner.plan_kernels(half, replace(options, hits_per_sample=several), place)
        assert [t.info.measured_by for t in chosen] == [op] * 2
    on_cpu = planner.plan_kernels(half, options, torch.device("cpu"))
    assert [t.info.measured_by for t in on_cpu] == ["channel_reduce"] * 2
    for other in (replace(options, dtype="bfloat16"), replace(options, backend="reference")):
        ops = [t.info.measured_by for t in planner.plan_kernels(targets, other, place)]
        assert ops == ["channel_reduce", "channel_reduce"]
    monkeypatch.setattr(dispatch, "_BEST_FIRST", {"cpu": ("reference",)})
    ops = [t.info.measured_by for t in planner.plan_kernels(targets, options, place)]
    assert ops == ["channel_reduce", "channel_reduce"]
    assert planner.chosen_by(place).startswith("predicted")
    assert planner.chosen_by(torch.device("cpu")) == "fixed rules"


@pytest.mark.parametrize(
    ("backend", "fused"), [("cuda", [False, True, False, False]), ("auto", [True] * 4)]
)
def test_a_backend_runs_fused_what_it_supports(backend, fused, monkeypatch):
    """By itself CUDA C++ has depthwise rows of 3, 5 and 7 taps at a stride of up to 2 only."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, 2, groups=8), nn.Conv2d(8, 8, 3, 3, groups=8),
        nn.Conv2d(8, 8, 1),
    )  # fmt: skip
    targets = plan_capture(model, torch.zeros(2, 3, 40, 40), stage="conv")
    monkeypatch.setattr(limits, "no_device", lambda x: None)
    monkeypatch.setattr(cuda, "unavailable", lambda: None)
    monkeypatch.setattr(planner, "_pays", lambda target, options: True)
    dispatch.load.cache_clear()
    options = Options.create(length=9, **{**GIVEN, "backend": backend})
    chosen = planner.plan_kernels(targets, options, torch.device("cpu"))
    dispatch.load.cache_clear()
    assert [layer.fused for layer in chosen] == fused
