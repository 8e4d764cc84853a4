"""The suite for a GPU is proved to start, and to say why it does not, without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

ROOT = Path(__file__).parents[3]


def suite(*arguments: str) -> subprocess.CompletedProcess:
    environment = {
        k: v for k, v in os.environ.items() if k not in {"TRITON_INTERPRET", "PYTHONPATH"}
    }
    command = [sys.executable, ROOT / "benchmarks" / "device_suite.py", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fast", "graph", "right", "why", "tune"])
def test_smoke(stage):
    done = suite(stage, "--smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{stage}: 0 failed" in done.stdout


def test_what_is_known_is_written_before_a_stage_ends(tmp_path, monkeypatch, capsys):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from device_stages import common

    suite = common.Suite("right", smoke=True, out=tmp_path, seconds=540)
    suite.check("good", lambda: None)
    suite.check("bad", lambda: "is off by 1")
    assert json.loads(suite.path.read_text())["failures"] == ["bad: is off by 1"]
    assert "finished" not in json.loads(suite.path.read_text())["result"]
    suite._end = 0.0
    assert suite.check("late", lambda: "never looked at")
    assert suite.finish() == 1
    kept = json.loads(suite.path.read_text())["result"]
    assert kept == {"not reached": ["late"], "finished": True}


def test_a_part_that_hangs_is_ended_and_named(tmp_path, monkeypatch):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from device_stages import common

    suite = common.Suite("right", smoke=True, out=tmp_path, seconds=540)
    hang = [sys.executable, "-c", "import time; print('at conv 3x3', flush=True); time.sleep(99)"]
    assert suite.run_part("checks 0 1", hang, seconds=3) == "took more than 3 s; at conv 3x3"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_without_a_gpu_it_says_so():
    done = suite("fast")
    assert done.returncode == 2
    assert "there is no CUDA device" in done.stderr


def test_predictions_are_those_of_the_design():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from roofline import LAYERS, floors, ratios

    stem = floors(LAYERS[0], "bf16")
    assert [round(stem[n]) for n in ("mma", "mem", "epi", "l2")] == [76, 18, 133, 172]
    assert [round(stem[n]) for n in ("conv", "comp", "eager", "eager_all")] == [114, 209, 687, 1356]
    # half of what it was with 8 issue slots a value: 20 were counted in compiled code
    assert round(ratios(floors(LAYERS[6], "tf32"))["conv"], 2) == 1.80
