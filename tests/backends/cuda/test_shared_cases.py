"""The cases that every backend must pass (tests/ops), by the kernels of GPUs on the processor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[2]
# Triton's interpreter takes long: float32 only; the others are in tests/backends/triton
FLOAT32 = "(agrees and not (dtype1 or dtype2 or float16)) or source or trap or opcheck or outside"
CHOSEN = {"cuda": "cpu-cuda or cuda-cpu", "triton": f"(cpu-triton or triton-cpu) and ({FLOAT32})"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/ops run them on the device")
@pytest.mark.parametrize("backend", CHOSEN)
def test_on_the_processor(backend, on_host):
    pytest.importorskip("triton", reason="triton is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "helpers.on_host", "ops"]
    command += ["-k", CHOSEN[backend], "-p", "no:cacheprovider", "--rootdir", str(TESTS.parent)]
    found = {"FASTCONV_ON_HOST": str(on_host), "OMP_NUM_THREADS": "1"}
    found["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=TESTS, env=os.environ | found, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 60, done.stdout[-500:]
