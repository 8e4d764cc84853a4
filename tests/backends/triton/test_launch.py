"""Triton can launch what the wrappers ask for: up to the driver, for which a stand-in stands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="no gcc, with which Triton compiles its launchers"
)

STRIDED = "tma_3x3_stride_bf16"
VOLUME = "normalize_zscore_volume"  # 524,288 blocks: more than a grid has along y and z
FEW = ("tma_3x3_bf16", STRIDED, "pointer_stem_bf16", "reduce_nhwc_bf16", VOLUME)


def launched(*cases: str) -> dict[str, list[dict]]:
    """What the driver was asked for in each case, in a process without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, Path(__file__).parents[2] / "helpers" / "launching.py", *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found: dict[str, list[dict]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("case "):
            asked = found.setdefault(line.removeprefix("case "), [])
        else:
            asked.append(json.loads(line))
    return found


def test_kernels_are_launched_with_what_the_driver_takes():
    found = launched(*FEW)
    assert list(found) == list(FEW)
    assert all(any("grid" in asked for asked in found[case]) for case in FEW)
    boxes = [asked for asked in found[STRIDED] if "map" in asked]
    planes = [asked["dim"] for asked in boxes if asked["map"] == 5]
    assert planes == [[128, 28, 28, 1, 8]] * 4  # one for each parity of row and column
    assert [asked["dim"] for asked in boxes if asked["map"] == 3] == [[128, 9, 128]]  # the weight


@pytest.mark.slow
def test_every_case_is_launched():
    for case, asked in launched().items():
        assert any("grid" in line for line in asked), case
