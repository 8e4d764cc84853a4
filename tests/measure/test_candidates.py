"""Hits from the lists that kernels fill are those of the whole activations, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.networks import images, network

import fastconv
from fastconv.backends import cpu
from fastconv.dispatch import load
from fastconv.measure import candidates as listing
from fastconv.run import layer_sink
from fastconv.run import plan as planner

pytestmark = pytest.mark.skipif(isinstance(load("cpu"), str), reason=str(load("cpu")))


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


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("stage", "order", "hits_per_sample"),
    [("conv", "smallest", 3), ("conv", "largest", 9), ("act", "largest", 3), ("act", "both", 3)],
)
def test_lists_change_nothing(
    stage, order, hits_per_sample, fused, tmp_path, monkeypatch, whole_activations
):
    model, data = network(), (images(22) * 2).round()  # ties
    data[20, 1, 4, 4] = torch.nan
    with torch.no_grad():
        model[0].weight[1:3] = 0  # dead filters: every position ties
    options = {"batch_size": 4, "topk": 7, "stage": stage, "order": order, "progress": False}
    options["hits_per_sample"] = hits_per_sample
    monkeypatch.setattr(planner, "_pays", lambda target, _: fused and target.fusion is not None)
    runs = {"lists": fastconv.extract(model, data, tmp_path / "lists.h5", **options)}
    layers = runs["lists"].layers
    sets = 2 if order == "both" else 1
    assert len(whole_activations) == 2 * sets * len(layers)  # until 7 samples have been seen
    whole_activations.clear()
    with monkeypatch.context() as patch:
        patch.setattr(listing, "LEAST", 1)
        patch.setattr(listing, "MOST", 1)
        runs["short"] = fastconv.extract(model, data, tmp_path / "short.h5", **options)
    assert len(whole_activations) > 2 * sets * len(layers)  # what was too short was made up for
    for op in ("conv_reduce", "channel_reduce"):
        kernel = cpu.KERNELS[op]
        without = kernel._replace(takes=kernel.takes - {"candidates"})
        monkeypatch.setitem(cpu.KERNELS, op, without)
    wanted = fastconv.extract(model, data, tmp_path / "whole.h5", **options)
    for run in runs.values():
        for name in layers:
            for hits in ("topk", "bottomk")[:sets]:
                found = zip(getattr(run[name], hits), getattr(wanted[name], hits), strict=True)
                for array, expected in found:
                    np.testing.assert_array_equal(array, expected)
            for pictures in ("patches", "bottomk_patches")[:sets]:
                found, expected = (getattr(r[name], pictures)[()] for r in (run, wanted))
                np.testing.assert_array_equal(found, expected)
            for field, value in wanted[name].stats.items():
                np.testing.assert_array_equal(run[name].stats[field], value)
