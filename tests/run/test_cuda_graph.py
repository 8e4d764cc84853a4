"""Full batches from a graph, with one that records operations instead of a GPU's."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from helpers.networks import datasets, images, network
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import fastconv
from fastconv.errors import FastconvError
from fastconv.run import gpu_cost, recorder
from fastconv.run import plan as planner
from fastconv.run.save_clock import SaveClock


class FakeGraph:
    """Does the recorded operations again, on the memory that they were recorded with."""

    made: ClassVar[list[FakeGraph]] = []

    def __init__(self) -> None:
        self.operations: list[tuple] = []
        self.replays = 0
        FakeGraph.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        with torch.inference_mode():
            for function, args, kwargs, out in self.operations:
                again, _ = tree_flatten(function(*args, **kwargs))
                for old, new in zip(out, again, strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class FakeCapture(TorchDispatchMode):
    """Records; what a GPU would not do meanwhile is undone afterwards."""

    def __init__(self, graph: FakeGraph, stream: torch.device, capture_error_mode: str) -> None:
        super().__init__()
        assert (stream.type, capture_error_mode) == ("cpu", "thread_local")
        self.graph, self.before = graph, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[number] if number < len(args) else kwargs.get(argument.name)
                changed = [t for t in tree_flatten(given)[0] if t is not None]
                self.before += [(t, t.clone()) for t in changed]
        out = func(*args, **kwargs)
        self.graph.operations.append((func, args, kwargs, tree_flatten(out)[0]))
        return out

    def __exit__(self, *error):
        super().__exit__(*error)
        with torch.inference_mode():
            for tensor, value in reversed(self.before):
                tensor.copy_(value)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs of later runs, which use them whatever the device."""
    monkeypatch.setattr(FakeGraph, "made", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", FakeCapture)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)

    def use():
        monkeypatch.setattr(recorder, "replays", lambda options, place: True)
        return FakeGraph.made

    return use


LAYERS = ["0", "3.conv*", "5", "7"]
OPTIONS = {"batch_size": 4, "topk": 3, "order": "both", "progress": False, "layers": LAYERS}


@pytest.mark.parametrize("often", [False, True])
def test_the_result_is_that_of_a_run_without(often, tmp_path, graphs, monkeypatch):
    """Also where a part is saved after every unit, so that the states move."""
    monkeypatch.setattr(SaveClock, "due", lambda self: often)
    model, data = network(), images(30)
    fastconv.extract(model, data, tmp_path / "plain.h5", **OPTIONS)
    made = graphs()
    fastconv.extract(model, data, tmp_path / "replayed.h5", **OPTIONS)
    plain, replayed = (datasets(tmp_path / f"{name}.h5") for name in ("plain", "replayed"))
    assert plain.keys() == replayed.keys()
    assert [k for k in plain if k != "run/config_json" and plain[k] != replayed[k]] == []
    # 7 full batches, the first two as they come; the last has 2 samples
    assert [graph.replays for graph in made] == ([1] * 5 if often else [5])


def test_a_model_that_cannot_be_captured_runs_without(tmp_path, graphs, monkeypatch):
    model, data = network(), images(30)
    fastconv.extract(model, data, tmp_path / "plain.h5", **OPTIONS)
    graphs()

    def refuse(graph, **options):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    with pytest.warns(UserWarning) as said:
        fastconv.extract(model, data, tmp_path / "replayed.h5", **OPTIONS)
    said = [str(w.message) for w in said if "graph" in str(w.message)]
    assert said == ["without a CUDA graph: operation not permitted when stream is capturing"]
    plain, replayed = (datasets(tmp_path / f"{name}.h5") for name in ("plain", "replayed"))
    assert [k for k in plain if k != "run/config_json" and plain[k] != replayed[k]] == []


def test_an_error_of_the_model_is_not_hidden(tmp_path, graphs):
    graphs()
    model, data = network(), images(30)
    calls = []

    def fail(module, inputs):
        calls.append(len(inputs))
        if len(calls) > 4:
            raise FastconvError("out of luck")

    model[5].register_forward_pre_hook(fail)
    with pytest.raises(FastconvError, match="out of luck"):
        fastconv.extract(model, data, tmp_path / "run.h5", **OPTIONS)


def test_only_where_it_was_measured_to_be_faster(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_cost, "file_of", lambda device: tmp_path / f"{device}.json")
    assert not gpu_cost.graph_is_faster("Some GPU", 1)
    (tmp_path / "Some GPU.graph.json").write_text('{"up_to_batch": 8}')
    assert gpu_cost.graph_is_faster("Some GPU", 8)
    assert not gpu_cost.graph_is_faster("Some GPU", 9)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: "Some GPU")
    given = {
        "stage": "act", "topk": 9, "hits_per_sample": 1, "order": "largest", "stats": True,
        "quantiles": True, "patches": True, "samples": False, "maps": None,
        "maps_dtype": "rounded", "normalize": None, "batch_size": 8, "dtype": None,
        "backend": "auto", "shard": None,
    }  # fmt: skip
    cuda = torch.device("cuda")
    for changed, wanted in (
        ({}, True), ({"batch_size": 9}, False), ({"samples": True}, False),
        ({"maps": "all"}, False), ({"hits_per_sample": 2}, False),
    ):  # fmt: skip
        options = planner.Options.create(length=9, **{**given, **changed})
        assert planner.replays(options, cuda) is wanted
        assert not planner.replays(options, torch.device("cpu"))
