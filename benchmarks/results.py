"""Keep a benchmark's figures, with what made them, under benchmarks/results/<machine>/."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def machine() -> str:
    """A short name: the processor's, and its number of cores."""
    name = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*: (.*)", info.read_text())
        name = found[1] if found else name
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {os.cpu_count()} cores".lower()).strip("-")


def versions() -> dict[str, Any]:
    """Commit (with "-dirty" where anything but kept figures differs from it), date and versions."""
    commit = _git("describe", "--always") or "unknown"
    changed = _git("status", "--porcelain", "--", ":(top)", ":(top,exclude)benchmarks/results")
    return {
        "commit": f"{commit}-dirty" if changed else commit,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return run.stdout.strip()


def save(name: str, result: Any, folder: str | None = None) -> Path | None:
    """Write results/<machine>/<name>.json; nothing is kept of a smoke run."""
    if os.environ.get("FASTCONV_BENCH_SMOKE") == "1":
        return None
    path = HERE / "results" / (folder or machine()) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**versions(), "result": result}, indent=1) + "\n")
    return path
