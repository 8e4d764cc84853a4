"""The ops are well-behaved citizens of torch: opcheck, and torch.compile without a graph break."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from helpers.backend_cases import DEVICES
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import fastconv
from fastconv.histogram import BINS
from fastconv.ops.topk_merge import empty_topk


def op_arguments(device):
    """Positional arguments of torch.ops.fastconv.<op>, the backend left out."""
    x = torch.randn(2, 3, 6, 5, device=device)
    weight, affine = torch.randn(4, 3, 3, 3, device=device), torch.randn(4, device=device)
    index = torch.tensor([1, 0, 1], device=device)
    start = torch.tensor([[0, -1], [3, 2], [9, 9]], device=device)
    top = empty_topk(3, 2, device)[:3]
    new = (torch.randn(3, 4, device=device), *torch.randint(0, 9, (2, 3, 4), device=device))
    counts = torch.zeros(4, BINS, dtype=torch.int64, device=device)
    geometry = ([1, 2], [1, 1, 0, 1], [1, 1], 1)
    return {
        "conv_reduce": [
            (x, weight, None, *geometry, None, None, None, None, False),
            (x, weight, affine, *geometry, affine, affine, "relu", counts, True),
            (x, weight[:3, :1], None, [1, 2], [1, 1, 0, 1], [1, 1], 3, *(None,) * 4, True),
        ],
        "channel_reduce": [
            (x, None, None, None, None),
            (x, affine[:3], affine[:3], "gelu", counts[:3]),
        ],
        "channel_normalize": [
            (x, "instance", None, None, 1e-5),
            (x, "batchnorm", affine[:3], affine[:3], 0.0),
        ],
        "topk_merge": [(*top, *new, True), (*top, *new, False)],
        "gather_patches": [(x, index, start, [4, 3])],
    }


CASES = [
    pytest.param(device, op, name, index, id=f"{op}-{device}-{name}-{index}")
    for device in DEVICES
    for op, names in fastconv.backends(device).items()
    for name in names
    for index in range(len(op_arguments(device)[op]))
]


@pytest.mark.parametrize(("device", "op", "backend", "index"), CASES)
def test_opcheck(device, op, backend, index):
    arguments = op_arguments(device)[op][index]
    assert getattr(fastconv, op)  # imported, so that torch knows it
    torch.library.opcheck(getattr(torch.ops.fastconv, op).default, (*arguments, backend))


def everything(x, weight, index, start):
    """All five public functions in one graph."""
    conv = fastconv.conv_reduce(
        x, weight, padding="same", activation="relu", histogram=True, return_activation=True
    )
    hook = fastconv.channel_reduce(x, activation="silu", histogram=True)
    normal = fastconv.channel_normalize(x, "instance")
    patches = fastconv.gather_patches(x, index, start, 3)
    values, positions = conv.max.T.contiguous(), conv.argmax.T.contiguous()  # [C, N]
    samples = torch.zeros_like(positions) + torch.arange(values.shape[1])
    entries = (values, samples, positions)
    top = fastconv.topk_merge(
        *(t[:, :1].contiguous() for t in entries), *(t[:, 1:].contiguous() for t in entries)
    )
    return (
        *conv[:8],
        conv.histogram,
        conv.activation,
        *hook[:8],
        hook.histogram,
        normal,
        patches,
        *top,
    )


@pytest.mark.slow
def test_compile_without_a_graph_break():
    arguments = (
        torch.randn(3, 3, 6, 5), torch.randn(4, 3, 2, 3), torch.tensor([1, 0]),
        torch.tensor([[0, -1], [3, 2]]),
    )  # fmt: skip
    compiled = torch.compile(everything, fullgraph=True)
    for got, want in zip(compiled(*arguments), everything(*arguments), strict=True):
        assert torch.equal(got.nan_to_num(7), want.nan_to_num(7))


def reduced(x, weight):
    return fastconv.conv_reduce(x, weight)[:4]


def made_fx(x, weight):
    return {str(node.target) for node in make_fx(reduced)(x, weight).graph.nodes}


def jit_traced(x, weight):
    return {node.kind() for node in torch.jit.trace(reduced, (x, weight)).graph.nodes()}


def seen_by_a_mode(x, weight):
    class Seen(TorchDispatchMode):
        names: ClassVar = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names.add(str(func))
            return func(*args, **(kwargs or {}))

    with Seen():
        reduced(x, weight)
    return Seen.names


@pytest.mark.parametrize("trace", [made_fx, jit_traced, seen_by_a_mode])
def test_tracers_see_the_operator(trace):
    names = trace(torch.randn(2, 3, 6, 5), torch.randn(4, 3, 3, 3))
    assert any(name.startswith(("fastconv.conv_reduce", "fastconv::conv_reduce")) for name in names)


def test_fake_tensors_have_fake_results():
    with FakeTensorMode():
        x, weight = torch.empty(2, 3, 6, 5), torch.empty(4, 3, 3, 3)
    found = reduced(x, weight)  # the mode is left: the tensors say that they are fake
    assert all(isinstance(t, FakeTensor) and t.shape == (2, 4) for t in found)


@pytest.mark.parametrize("backend", fastconv.backends()["conv_reduce"])
def test_no_result_looks_differentiable(backend):
    x, weight = torch.randn(2, 3, 6, 5), torch.randn(4, 3, 3, 3, requires_grad=True)
    found = fastconv.conv_reduce(x, weight, return_activation=True, backend=backend)
    assert not any(t.requires_grad for t in found if isinstance(t, torch.Tensor))
