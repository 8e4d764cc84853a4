"""Where Triton cannot run: a reason from `doctor` and by name, a fallback under "auto"."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from fastconv import dispatch
from fastconv.errors import BackendUnavailableError

RUN = """
import torch, fastconv
from fastconv.cli.main import main
main(["doctor"])
x = torch.arange(6.0).view(1, 2, 3)
print(fastconv.channel_reduce(x).max.tolist())
try:
    fastconv.channel_reduce(x, backend="triton")
except fastconv.errors.BackendUnavailableError as error:
    print("by name:", error)
"""


def told(path=None) -> str:
    """What doctor, "auto" and "triton" say in a process without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if path is not None:
        before = os.environ.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = os.pathsep.join([str(path), before])
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "[[2.0, 5.0]]" in done.stdout  # under "auto" it runs nevertheless
    return done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_without_a_device():
    text = told()
    reason = "there is no CUDA device (TRITON_INTERPRET=1 runs the kernels on the CPU, slowly)"
    assert f"no triton          {reason}" in text
    assert f"by name: backend 'triton' is not available: {reason}" in text
    if torch.version.cuda is None:
        assert "no: this torch is built without CUDA" in text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("__version__ = '3.5.1'", "triton 3.5.1 is too old; install triton 3.6 or later"),
        ("raise ImportError('libtriton.so is missing')", "libtriton.so is missing"),
    ],
)
def test_with_a_triton_that_does_not_do(source, reason, tmp_path):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(source)
    text = told(tmp_path)
    assert f"no triton          it cannot be imported: {reason}" in text
    assert f"by name: backend 'triton' is not available: it cannot be imported: {reason}" in text


def test_on_an_old_device(monkeypatch):
    """No GPU of that kind is needed: the choice looks at the device's capability alone."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    device = torch.device("cuda")
    x = _Tensor(device)
    why = "on cuda: the device is sm_75; the kernels need sm_80 or later"
    for op, arguments in (("channel_reduce", (x,)), ("conv_reduce", (x, x)), ("topk_merge", (x,))):
        with pytest.raises(BackendUnavailableError, match=why):
            dispatch.select(op, "triton", device, *arguments)
        reference = dispatch.load("reference").KERNELS[op].run
        assert dispatch.select(op, "auto", device, *arguments) is reference


class _Tensor:
    """What the choice sees of a bfloat16 tensor on a GPU."""

    is_cuda, dtype = True, torch.bfloat16

    def __init__(self, device: torch.device):
        self.device = device

    def __getitem__(self, index: object) -> torch.Tensor:
        return torch.zeros(1, 2, 3)
