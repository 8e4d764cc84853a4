"""Every benchmark still runs, with correctness asserted, at small sizes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(folder, *command):
    """What a command of Python's prints, at small sizes, in `folder`."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "FASTCONV_BENCH_SMOKE": "1", "PYTHONPATH": path}
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted(p.name for p in ROOT.glob("benchmarks/bench_*.py")))
def test_benchmark_runs_at_small_sizes(program, tmp_path):
    before = set(ROOT.glob("benchmarks/results/**/*"))
    assert run(tmp_path, ROOT / "benchmarks" / program).strip()
    assert set(ROOT.glob("benchmarks/results/**/*")) == before  # nothing is kept of a smoke run


@pytest.mark.slow
def test_pytest_collects_the_convolutions(tmp_path):
    options = ["--benchmark-only", "-q", "-k", "layer4_3x3 and float32"]
    printed = run(
        tmp_path, "-m", "pytest", ROOT / "benchmarks", "-c", ROOT / "pyproject.toml", *options
    )
    assert "resnet18.layer4_3x3 float32" in printed
    assert "float32-fused]" in printed


def test_every_table_is_drawn(tmp_path):
    """Of every machine whose figures are kept."""
    drawn, printed = set(), ""
    for folder in (ROOT / "benchmarks" / "results").iterdir():
        images = tmp_path / folder.name
        images.mkdir()
        told = run(
            tmp_path, ROOT / "benchmarks" / "plots.py", "--machine", folder.name, "--images", images
        )
        here = {path.name for path in images.glob("*.png")}
        assert told.count("## ") == len(here)
        drawn, printed = drawn | here, printed + told
    assert {"channel_reduce.png", "extract_resnet18.png", "maps_relu.png"} <= drawn
    assert "| geometric mean |" in printed
