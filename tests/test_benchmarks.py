"""Every benchmark still runs, with correctness asserted, at small sizes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted(p.name for p in ROOT.glob("benchmarks/bench_*.py")))
def test_benchmark_runs_at_small_sizes(program, tmp_path):
    before = set(ROOT.glob("benchmarks/results/**/*"))
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "FASTCONV_BENCH_SMOKE": "1", "PYTHONPATH": path}
    command = [sys.executable, str(ROOT / "benchmarks" / program)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    assert set(ROOT.glob("benchmarks/results/**/*")) == before  # nothing is kept of a smoke run
