"""What `make bench` collects: every convolution as a table of its own, then every program.

The tables compare times within a case, one candidate after the other; the programs interleave their
candidates, print ratios and keep them as JSON. Correctness comes first in both.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench_conv_reduce import DTYPES, Problem, cases_of, peak
from cases import SMOKE

from fastconv.backends import cpu

HERE = Path(__file__).parent
CONVOLUTIONS = [(case, name) for name, dtype in DTYPES.items() for case in cases_of(dtype)]
ROUNDS = 1 if SMOKE else 7
CANDIDATES = ["alone", "fused", "packed", "chain", *([] if SMOKE else ["compiled"])]


@pytest.fixture(scope="session")
def peaks() -> dict[str, float]:
    """GFLOP/s of a large matrix product."""
    return {name: peak(dtype) for name, dtype in DTYPES.items()}


@pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
@pytest.mark.parametrize("what", CANDIDATES)
@pytest.mark.parametrize(
    "case, dtype", CONVOLUTIONS, ids=[f"{c.name}-{d}" for c, d in CONVOLUTIONS]
)
def test_convolution(benchmark, case, dtype, what, peaks):
    with torch.inference_mode():
        problem = Problem(case, DTYPES[dtype])
        problem.check()
        layout = list(problem.layouts)[-1]
        benchmark.group = f"{case.name} {dtype}"
        benchmark.pedantic(
            getattr(problem, what), (layout,), rounds=ROUNDS, warmup_rounds=1, iterations=1
        )
    rate = case.flops / benchmark.stats.stats.median / 1e9
    benchmark.extra_info |= {
        "flops": case.flops,
        "GFLOP/s": rate,
        "share of peak": rate / peaks[dtype],
        "threads": torch.get_num_threads(),
        "isa": cpu.isa(),
    }


@pytest.mark.parametrize("program", sorted(path.name for path in HERE.glob("bench_*.py")))
def test_program(benchmark, program):
    benchmark.group = "programs"
    command = [sys.executable, str(HERE / program)]
    benchmark.pedantic(subprocess.run, (command,), {"check": True}, rounds=1)
