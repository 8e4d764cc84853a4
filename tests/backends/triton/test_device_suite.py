"""The suite for a GPU is proved to start, and to say why it does not, without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
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


def test_what_a_part_started_ends_with_it(tmp_path):
    """A profiler's or a sanitizer's child holds the GPU, and the output, otherwise."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from device_stages import common

    child = "import os, time; print(os.getpid(), flush=True); time.sleep(99)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    code, told = common.run_limited([sys.executable, "-c", parent], 3)
    assert code is None
    deadline = time.monotonic() + 30
    while runs(int(told)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(int(told))


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


UNKNOWN = "error: unrecognised option --kernel-regex"
SUMMARY = "========= ERROR SUMMARY: 0 errors"


@pytest.mark.parametrize(
    ("told", "runs", "result", "wrong"),
    [
        ([None], 1, "nothing found", False),
        ([UNKNOWN, None], 2, "nothing found", False),
        ([f"memcheck found something {SUMMARY}"], 1, "memcheck found something", True),
        (["took more than 80 s; at small"], 1, "took more than 80 s", True),
        ([UNKNOWN, "Device not supported"], 2, "does not support this device", False),
    ],
)
def test_the_sanitizer_looks_at_these_kernels_alone_where_it_can(
    told, runs, result, wrong, tmp_path, monkeypatch
):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from device_stages import common, cuda

    suite = common.Suite("right", smoke=True, out=tmp_path, seconds=540)
    commands, answers = [], iter(told)
    monkeypatch.setattr(cuda.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(suite, "run_part", lambda p, c, s: commands.append(c) or next(answers))
    assert bool(cuda.sanitized(suite, "memcheck", "cuda", 80)) is wrong
    assert result in suite.result["memcheck, cuda"]
    assert len(commands) == runs
    assert "kns=fastconv" in commands[0]
    assert len(commands) == 1 or "kns=fastconv" not in commands[1]


def test_tests_that_time_runs_out_on_are_no_failure(tmp_path, monkeypatch):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from device_stages import common, cuda

    suite = common.Suite("right", smoke=True, out=tmp_path, seconds=540)
    name = "shared cases, triton"
    monkeypatch.setattr(cuda, "run_limited", lambda *a, **k: (None, "....s [ 1%]\n...\n"))
    assert cuda.tests(suite, name, 9) is None
    assert suite.result[name] == "7 passed, then time ran out"
    monkeypatch.setattr(cuda, "run_limited", lambda *a, **k: (None, "..F.E [ 1%]\n"))
    assert cuda.tests(suite, name, 9) == "2 failed before 9 s had passed"
    monkeypatch.setattr(cuda, "run_limited", lambda *a, **k: (1, "..F\nFAILED a\n1 failed\n"))
    assert cuda.tests(suite, name, 9) == "1 failed; FAILED a"


def test_the_summary_fits_forty_lines_and_begins_with_failures(tmp_path, capsys):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from device_stages import common

    suite = common.Suite("fast", smoke=True, out=tmp_path, seconds=540)
    for number in range(30):
        suite.check(f"case {number}", lambda: "is off")
    suite.summary += [f"line {number}" for number in range(50)]
    capsys.readouterr()
    assert suite.finish() == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 40
    assert lines[1] == "FAILED case 0: is off"
    assert "line 20" in lines
    assert lines[-2].startswith("fast: 30 failed, 0 not reached")


def test_goals_stand_beside_what_was_measured():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from device_stages import goals
    from roofline import LAYERS, floors

    def entry(layer, math_type):
        times = {"fused": 90.0, "conv": 101.0}
        return {
            "microseconds": times, "predicted": floors(layer, math_type),
            "hook TB/s": 3.0, "TFLOP/s": 400.0,
        }  # fmt: skip

    result = {m: {layer.name: entry(layer, m) for layer in LAYERS} for m in ("bf16", "tf32")}
    result |= {"copy, TB/s": 4.0, "A": {"written, share of the output": 0.001}}
    lines = goals.lines(result)
    text = "\n".join(lines)
    assert "met  G1 rn50 l3 3x3 256@14: 0.89 of cuDNN's time, at most 1.1; predicted 1.00" in lines
    assert "MISS G2 1x1 64->256@56: 0.89 of cuDNN's time, at most 0.6" in text
    assert "met  G3 vgg16 conv1_2 64@224: 51% of the product's rate, at least 45%" in lines
    assert "met  G4 bf16 " in text and "MISS G4 tf32 " in text  # 75 % of a copy's bandwidth
    assert "met  G5: 0.10% of the value written, below 2%" in lines


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
