"""Which (device, backend) pairs this machine can run, and small things that op tests share."""

from __future__ import annotations

import contextlib

import pytest
import torch

import fastconv
from fastconv import dispatch
from fastconv.backends import cpu

FIELDS = ("sum", "sumsq", "min", "max", "argmax", "argmin", "positive", "nonfinite")
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
NATIVE = not isinstance(dispatch.load("cpu"), str)

needs_native = pytest.mark.skipif(not NATIVE, reason=f"no C++ library: {dispatch.load('cpu')}")
every_isa = pytest.mark.parametrize("isa", cpu.ISA_LEVELS, indirect=True)


def every_backend(op: str):
    """Parametrise over device and backend; a new backend needs no edit here."""
    pairs = [(device, name) for device in DEVICES for name in fastconv.backends(device)[op]]
    return pytest.mark.parametrize(("device", "backend"), pairs)


@contextlib.contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_same_bits(a, b) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    if a.histogram is not None and b.histogram is not None:
        assert torch.equal(a.histogram, b.histogram)


def layouts(x: torch.Tensor):
    """x [N, C, *spatial] in every memory layout: name, tensor."""
    yield "contiguous", x.contiguous()
    yield "channels_last", x.movedim(1, -1).contiguous().movedim(-1, 1)
    yield "strided", torch.stack([x, x], -1)[..., 0]
