"""Where CUDA cannot run: a reason from `doctor` and by name, a fallback under "auto"."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest
import torch

import fastconv
from fastconv import dispatch
from fastconv.backends import cuda
from fastconv.backends.cuda import limits
from fastconv.backends.cuda.limits import no_device  # as it is, whatever other tests put there
from fastconv.cli.main import main
from fastconv.errors import BackendUnavailableError

X = torch.arange(6.0).view(1, 2, 3)


@pytest.fixture
def asked_again():
    """What is known of the backend is forgotten, before and after."""
    cuda.unavailable.cache_clear()
    dispatch.load.cache_clear()
    yield
    cuda.unavailable.cache_clear()
    dispatch.load.cache_clear()


def pretend(monkeypatch, *, cuda_version="13.0", device=True, library=True):
    monkeypatch.setattr(torch.version, "cuda", cuda_version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device)
    if library:
        monkeypatch.setitem(sys.modules, "fastconv._C_cuda", types.ModuleType("fastconv._C_cuda"))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"cuda_version": None}, "this torch is built without CUDA"),
        ({"library": False}, "installed without its CUDA kernels; install it again with FASTCONV"),
        ({"device": False}, "there is no CUDA device"),
    ],
)
def test_the_reason_is_said_and_auto_goes_on(given, reason, asked_again, monkeypatch, capsys):
    if not given.get("library", True) and importlib.util.find_spec("fastconv._C_cuda"):
        pytest.skip("the CUDA kernels are installed here")
    pretend(monkeypatch, **given)
    loaded = dispatch.load("cuda")
    assert isinstance(loaded, str) and reason in loaded
    with pytest.raises(BackendUnavailableError, match="backend 'cuda' is not available: ") as error:
        fastconv.channel_reduce(X, backend="cuda")
    assert reason in str(error.value)
    assert fastconv.channel_reduce(X).max.tolist() == [[2.0, 5.0]]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # doctor asks the device
    assert main(["doctor"]) == 0
    assert f"no cuda            {loaded}" in capsys.readouterr().out


def test_a_library_of_another_torch_is_said(asked_again, monkeypatch, tmp_path):
    pretend(monkeypatch, library=False)
    monkeypatch.delitem(sys.modules, "fastconv._C_cuda", raising=False)
    (tmp_path / "_C_cuda.py").write_text("raise ImportError('undefined symbol: x')")
    monkeypatch.setattr(fastconv, "__path__", [*fastconv.__path__[:0], str(tmp_path)])
    reason = cuda.unavailable()
    assert reason and "does not fit this torch (undefined symbol: x)" in reason


class OnDevice:
    """What the choice sees of a tensor on a GPU."""

    is_cuda = True

    def __init__(self, dtype=torch.bfloat16, elements=6):
        self.dtype, self.elements = dtype, elements
        self.device = torch.device("cuda")

    def __getitem__(self, index):
        return torch.empty(self.elements, device="meta")

    def element_size(self):
        return self.dtype.itemsize


@pytest.mark.parametrize(
    ("x", "capability", "reason"),
    [
        (OnDevice(), (8, 0), None),
        (OnDevice(), (7, 5), "the device is sm_75; the kernels need sm_80 or later"),
        (OnDevice(torch.float64), (9, 0), "float32, float16 and bfloat16, not torch.float64"),
        (OnDevice(elements=2**30 + 1), (9, 0), "one sample has 1073741825 elements"),
        (X, (9, 0), "the tensor is on cpu"),
    ],
)
def test_what_a_device_cannot_run_is_said(x, capability, reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(limits, "no_device", no_device)
    found = cuda.KERNELS["channel_reduce"].supports(x)
    assert found is None if reason is None else reason in found


def test_cuda_comes_first_and_the_reason_leads_to_the_next(asked_again, monkeypatch):
    pretend(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    device = torch.device("cuda")
    found = dispatch.kernel("channel_reduce", "auto", device, OnDevice())
    assert found is cuda.KERNELS["channel_reduce"]
    full = OnDevice(), torch.zeros(8, 4, 3, 3), None, [1, 1], [0] * 4, [1, 1], 1
    assert dispatch.kernel("conv_reduce", "auto", device, *full).run is not cuda.conv_reduce.run
    with pytest.raises(BackendUnavailableError, match="it is not depthwise"):
        dispatch.kernel("conv_reduce", "cuda", device, *full)
