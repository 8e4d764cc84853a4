"""What the stages share: the device, the clock, the report."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import torch
from results import versions

HERE = Path(__file__).parents[1]
LIMIT = 540.0  # seconds of a stage: ten minutes with room to write the results
AT, NOT_REACHED, TOOK = "at ", "not reached: ", "took more than"  # starts of lines


def cannot_run(*, smoke: bool) -> str | None:
    """Why a stage cannot run here, or None."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed"
    if not smoke and not torch.cuda.is_available():
        return "there is no CUDA device; --smoke runs a shrunken stage in the interpreter"
    from fastconv import dispatch

    backend = dispatch.load("triton")
    return backend if isinstance(backend, str) else None


class Suite:
    """Collects what a stage finds and writes it down."""

    def __init__(self, stage: str, *, smoke: bool, out: Path | None, seconds: float) -> None:
        self.stage, self.smoke = stage, smoke
        self.device = torch.device("cpu" if smoke else "cuda")
        self.started = time.monotonic()
        self._end = self.started + seconds
        self.failures: list[str] = []
        self.result: dict[str, Any] = {}
        self.summary: list[str] = []  # lines for people, at most 40 of them
        self._environment = environment()
        name = "smoke" if smoke else torch.cuda.get_device_name()
        self.kept = out is not None or not smoke  # results of a smoke run only where asked for
        self.out = out or HERE / "results" / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def left(self) -> float:
        """Seconds until the stage must end."""
        return self._end - time.monotonic()

    def check(self, name: str, run: Callable[[], str | None]) -> bool:
        """Run one check: it returns what is wrong, or None; an exception is a failure too.

        What is known so far is written down after each, lest a stage that is killed leave nothing.
        """
        if self.left() < 0:
            self.result.setdefault("not reached", []).append(name)
            print(f"{NOT_REACHED}{name}", flush=True)
            return True
        print(f"{AT}{name}", flush=True)
        return self._look(name, run)

    def _look(self, name: str, run: Callable[[], str | None]) -> bool:
        try:
            wrong = run()
        except Exception:  # noqa: BLE001 - a broken kernel must not end the report
            wrong = traceback.format_exc(limit=-2)
        if wrong:
            self.failures.append(f"{name}: {wrong}")
            print(f"FAILED {name}: {wrong}", flush=True)
        self.save()
        return not wrong

    def run_part(
        self,
        part: str,
        command: list[str] | None = None,
        seconds: float = LIMIT,
        stage: str | None = None,
    ) -> str | None:
        """Run one part of a stage in a process of its own; the end of its output if it fails.

        A part that hangs is ended, and what it was at is told.
        """
        limit = max(min(self.left(), seconds), 1.0)
        own = [sys.executable, str(HERE / "device_suite.py"), stage or self.stage, "--part", part]
        own += ["--seconds", str(limit - 20)]  # it stops by itself between two checks
        own += ["--smoke"] if self.smoke else []
        code, told = run_limited((command or []) + own, limit)
        self.last_output = told
        lines = told.splitlines()
        if code is None:
            at = [line for line in lines if line.startswith((AT, "FAILED"))]
            return f"{TOOK} {limit:.0f} s; {'; '.join(at[-3:])}"
        missed = [line.removeprefix(NOT_REACHED) for line in lines if line.startswith(NOT_REACHED)]
        if missed:
            self.result.setdefault("not reached", []).extend(missed)
        return None if code == 0 else told[-1500:]

    def shares(
        self, what: str, most: int, seconds: float = LIMIT
    ) -> dict[str, Callable[[], str | None]]:
        """`part("WHAT share shares")` in as many processes as compile well side by side."""
        shares = 1 if self.smoke else max(2, min(most, (os.cpu_count() or 2) - 2))
        return self.parts([f"{what} {share} {shares}" for share in range(shares)], seconds)

    def parts(
        self, names: list[str], seconds: float = LIMIT
    ) -> dict[str, Callable[[], str | None]]:
        """Parts by name, each to be run in a process of its own."""
        return {name: partial(self.run_part, name, seconds=seconds) for name in names}

    def check_together(self, runs: dict[str, Callable[[], str | None]]) -> None:
        """Check several things side by side; what is found is written down as each ends."""
        if self.left() < 0:
            for name, run in runs.items():
                self.check(name, run)
            return
        with ThreadPoolExecutor(len(runs)) as pool:
            started = {pool.submit(run): name for name, run in runs.items()}
            for ended in as_completed(started):
                self._look(started[ended], ended.result)

    def time(self, run: Callable[[], Any]) -> float:
        """Median microseconds; on a GPU with a cold L2."""
        if self.smoke:
            start = time.perf_counter()
            run()
            return 1e6 * (time.perf_counter() - start)
        import triton.testing

        return 1e3 * triton.testing.do_bench(run, warmup=20, rep=80, return_mode="median")

    def finish(self) -> int:
        """Print at most 40 lines, failures first; write the result; 1 if anything failed."""
        seconds = time.monotonic() - self.started
        missed = len(self.result.get("not reached", []))
        lines = [f"FAILED {failure}"[:200].replace("\n", " ") for failure in self.failures]
        lines = [*lines[:12], *self.summary]
        print(f"---- {self.stage}: summary")
        for line in lines[:37]:  # and three others
            print(line)
        print(f"{self.stage}: {len(self.failures)} failed, {missed} not reached, {seconds:.0f} s")
        if self.smoke and not self.kept:
            return bool(self.failures)
        self.result["finished"] = True
        self.save()
        print(f"wrote {self.path}")
        return bool(self.failures)

    @property
    def path(self) -> Path:
        return self.out / f"device_{self.stage}.json"

    def save(self) -> None:
        """Write down what is known so far."""
        if not self.kept:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        record = {
            "environment": self._environment,
            "seconds": round(time.monotonic() - self.started),
            "failures": self.failures,
            "result": self.result,
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(record, indent=1) + "\n")
        new.replace(self.path)


def run_limited(command: list[Any], seconds: float, **options: Any) -> tuple[int | None, str]:
    """Exit code, None if it took too long, and output; ended with every process that it started."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        text=True, errors="replace", **options,
    ) as process:  # fmt: skip
        try:
            told, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, _ = process.communicate()
            return None, told
    return process.returncode, told


def environment() -> dict[str, Any]:
    """Versions, and the device with its clocks."""
    import triton

    found: dict[str, Any] = {**versions(), "triton": triton.__version__}
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
