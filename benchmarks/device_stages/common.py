"""What the stages share: the device, the clock, the report."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parents[1]
LIMIT = 540.0  # seconds of a stage: ten minutes with room to write the results


def bare_package() -> None:
    """Make fastconv's kernels importable where packages for its files (h5py, ...) are missing."""
    try:
        import fastconv  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("fastconv"):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "fastconv"]:
            del sys.modules[name]
        package = types.ModuleType("fastconv")
        package.__path__ = [str(HERE.parent / "fastconv")]
        sys.modules["fastconv"] = package
        print(f"without fastconv's pipeline: {error}")


def cannot_run(*, smoke: bool) -> str | None:
    """Why a stage cannot run here, or None."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed"
    if not smoke and not torch.cuda.is_available():
        return "there is no CUDA device; --smoke runs a shrunken stage in the interpreter"
    bare_package()
    from fastconv import dispatch

    backend = dispatch.load("triton")
    return backend if isinstance(backend, str) else None


class Suite:
    """Collects what a stage finds and writes it down."""

    def __init__(self, stage: str, *, smoke: bool, out: Path | None) -> None:
        self.stage, self.smoke = stage, smoke
        self.device = torch.device("cpu" if smoke else "cuda")
        self.started = time.monotonic()
        self.failures: list[str] = []
        self.result: dict[str, Any] = {}
        name = "smoke" if smoke else torch.cuda.get_device_name()
        self.out = out or HERE / "results" / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def left(self) -> float:
        """Seconds until the stage must end."""
        return LIMIT - (time.monotonic() - self.started)

    def check(self, name: str, run: Callable[[], str | None]) -> bool:
        """Run one check: it returns what is wrong, or None; an exception is a failure too."""
        if self.left() < 0:
            self.result.setdefault("not reached", []).append(name)
            return True
        try:
            wrong = run()
        except Exception:  # noqa: BLE001 - a broken kernel must not end the report
            wrong = traceback.format_exc(limit=-2)
        if wrong:
            self.failures.append(f"{name}: {wrong}")
            print(f"FAILED {name}: {wrong}", flush=True)
        return not wrong

    def run_part(self, part: str, command: list[str] | None = None) -> str | None:
        """Run one part of this stage in a process of its own; the end of its output if it fails."""
        own = [sys.executable, str(HERE / "device_suite.py"), self.stage, "--part", part]
        own += ["--smoke"] if self.smoke else []
        limit = max(self.left(), 1.0)
        try:
            done = subprocess.run(
                (command or []) + own, capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return f"took more than {limit:.0f} s"
        self.last_output = done.stdout
        return None if done.returncode == 0 else (done.stdout + done.stderr)[-1500:]

    def time(self, run: Callable[[], Any]) -> float:
        """Median microseconds; on a GPU with a cold L2."""
        if self.smoke:
            start = time.perf_counter()
            run()
            return 1e6 * (time.perf_counter() - start)
        import triton.testing

        return 1e3 * triton.testing.do_bench(run, warmup=20, rep=80, return_mode="median")

    def finish(self) -> int:
        """Print the failures first, then the result; write both; 1 if anything failed."""
        seconds = time.monotonic() - self.started
        for failure in self.failures:
            print(f"FAILED {failure}")
        print(f"{self.stage}: {len(self.failures)} failed, {seconds:.0f} s")
        record = {"environment": environment(), "failures": self.failures, "result": self.result}
        text = json.dumps(record, indent=1)
        if self.smoke:
            return bool(self.failures)
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"device_{self.stage}.json"
        path.write_text(text + "\n")
        print(f"wrote {path}")
        return bool(self.failures)


def environment() -> dict[str, Any]:
    """Versions, and the device with its clocks."""
    import triton

    found = {"torch": torch.__version__, "triton": triton.__version__, "python": sys.version}
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["capability"] = torch.cuda.get_device_capability()
        query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        try:
            found["nvidia-smi"] = subprocess.run(command, capture_output=True, text=True).stdout
        except FileNotFoundError:
            found["nvidia-smi"] = "not found"
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
