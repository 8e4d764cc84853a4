"""What only a GPU can show: graphs, streams, waits, several devices."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F

import fastconv
from fastconv import dispatch
from fastconv.histogram import BINS
from fastconv.reduction import CandidateLists
from fastconv.run import recorder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GEOMETRY = ([1, 1], [1, 1, 1, 1], [1, 1])
LARGEST = True


@pytest.fixture(params=["cuda", "triton"])
def backend(request):
    """The kernels of a backend, by op."""
    module = dispatch.load(request.param)
    if isinstance(module, str):
        pytest.skip(module)
    return module.KERNELS


def inputs(device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-9, 10, (3, 16, 33, 31), generator=generator) / 4
    return x.to(device).contiguous(memory_format=torch.channels_last)


def work(backend, x):
    """Every kernel that a batch may start, as a callable that gives all results."""
    channels = x.shape[1]
    weight = torch.ones(channels, 1, 3, 3, device=x.device)
    affine = torch.linspace(0.5, 1.5, channels, device=x.device)
    threshold = torch.full((channels,), 1.5, device=x.device)
    index, start = (torch.zeros(s, dtype=torch.int64, device=x.device) for s in ((5,), (5, 2)))
    old = [torch.full((channels, 4), v, device=x.device) for v in (torch.nan, -1, -1)]

    def call():
        counts = torch.zeros(channels, BINS, dtype=torch.int64, device=x.device)
        lists = CandidateLists.create(threshold, 4096, largest=True)
        hook = backend["channel_reduce"].run(x, affine, affine, "relu", counts, lists)
        given = (weight, None, *GEOMETRY, channels, affine, affine, "relu", counts, True)
        fused = backend["conv_reduce"].run(x, *given)
        new = hook[3].T.contiguous(), *(hook[4].T.contiguous(),) * 2
        top = backend["topk_merge"].run(*old, *new, LARGEST)
        patches = backend["gather_patches"].run(x, index, start, (5, 5))
        return [*hook, *fused, *top, patches, counts, lists.counts]

    return call


def assert_equal(got, wanted):
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert torch.equal(a.nan_to_num(7e4), b.nan_to_num(7e4)), number


def test_a_graph_replays_on_new_values(backend):
    x = inputs("cuda")
    call = work(backend, x)
    call()  # what is compiled or loaded once
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    for shift in (0.0, 0.25, -1.0):
        x.copy_(inputs("cuda") + shift)
        graph.replay()
        got = [t.clone() for t in results]
        assert_equal(got, call())


def test_work_is_queued_on_the_current_stream(backend):
    """The input is written late, on a stream of its own."""
    x = inputs("cuda")
    call = work(backend, x)
    wanted, late = call(), x.clone()
    x.zero_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # clocks
        x.copy_(late)
        got = call()
    stream.synchronize()
    assert_equal(got, wanted)


def test_no_kernel_waits_for_the_device(backend):
    call = work(backend, inputs("cuda"))
    call()
    with contextlib.ExitStack() as after:
        after.callback(torch.cuda.set_sync_debug_mode, "default")
        torch.cuda.set_sync_debug_mode("error")
        call()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_another_device_than_the_current_one(backend):
    wanted = work(backend, inputs("cuda:0"))()
    got = work(backend, inputs("cuda:1"))()
    assert all(t.device.index == 1 for t in got)
    assert torch.cuda.current_device() == 0
    assert_equal([t.to("cuda:0") for t in got], wanted)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_extractions_on_two_devices_in_one_process(graph, tmp_path, monkeypatch):
    """With a CUDA graph, too: it is captured on the device of the batch."""
    monkeypatch.setattr(recorder, "replays", lambda options, place: graph)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    data = torch.rand(19, 3, 17, 19)
    options = {"batch_size": 2, "progress": False}
    results = [
        fastconv.extract(model, data, tmp_path / f"{place}.h5", device=f"cuda:{place}", **options)
        for place in (0, 1)
    ]
    first, second = (run["0"] for run in results)
    assert all((first.stats[name] == second.stats[name]).all() for name in first.stats)
    assert (first.topk.sample == second.topk.sample).all()


def test_a_graph_gives_the_bits_of_a_run_without(tmp_path, monkeypatch):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    data = torch.rand(19, 3, 17, 19)
    results = []
    for graph in (False, True):
        monkeypatch.setattr(recorder, "replays", lambda options, place, graph=graph: graph)
        path, options = tmp_path / f"{graph}.h5", {"batch_size": 2, "progress": False}
        results.append(fastconv.extract(model, data, path, device="cuda", **options)["0"])
    plain, replayed = results
    assert all((plain.stats[name] == replayed.stats[name]).all() for name in plain.stats)
    assert (plain.topk.sample == replayed.topk.sample).all()


def test_the_work_of_these_tests_agrees_with_plain_torch(backend):
    x = inputs("cuda")
    got = work(backend, x)()
    value = (F.avg_pool2d(x.double(), 3, 1, 1) * 9).float()
    affine = torch.linspace(0.5, 1.5, 16, device="cuda").view(-1, 1, 1)
    value = (value * affine + affine).relu()
    assert torch.allclose(got[11], value.flatten(2).amax(-1))  # of conv_reduce: max, activation
    assert torch.allclose(got[16], value)
