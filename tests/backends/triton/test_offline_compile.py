"""What the wrappers would launch on each GPU family compiles, without spills and with its units."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

FAMILIES = ("sm_80", "sm_90", "sm_100")
MATRIX_UNIT = {"sm_80": "mma", "sm_90": "wgmma", "sm_100": "tcgen05"}
FEW = ("tma_3x3_bf16", "pointer_3x3_tf32", "depthwise_nhwc_bf16", "reduce_nhwc_bf16")


@cache
def compiled(family: str, cases: tuple[str, ...]) -> list[dict]:
    """Compile in a process of its own: this one may hold the kernels in interpreted form."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, Path(__file__).parents[2] / "helpers" / "offline.py", family, *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_spills(family):
    for kernel in compiled(family, FEW):
        assert kernel["spills"] == 0, kernel


@pytest.mark.parametrize("family", FAMILIES)
def test_products_run_on_the_matrix_unit(family):
    convolutions = [k for k in compiled(family, FEW) if k["case"].startswith(("tma", "pointer"))]
    convolutions = [k for k in convolutions if k["kernel"].startswith("conv_reduce")]
    assert len(convolutions) == 2
    for kernel in convolutions:
        assert kernel[MATRIX_UNIT[family]] > 0, kernel


def test_kernel_a_fetches_through_tma():
    kernels = {k["kernel"]: k for k in compiled("sm_90", FEW)}
    assert kernels["conv_reduce_tma_kernel"]["tma"] > 0
    assert kernels["conv_reduce_tma_kernel"]["wgmma"] > 0
    assert "conv_reduce_tma_kernel" not in {k["kernel"] for k in compiled("sm_80", FEW)}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_spills_in_any_case(family):
    for kernel in compiled(family, ()):
        assert kernel["spills"] == 0, kernel
