"""The second half of each demo: extract, verify, draw."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from torch import nn

from fastconv.demo.overview import draw
from fastconv.run.extract import extract
from fastconv.verification.verify import verify

_MAPS = 16  # samples whose activation maps are kept


def measure_and_draw(model: nn.Module, data: Any, file: Path, picture: Path, what: str) -> bool:
    """Make `file` with everything on, check it, and draw it; True where every check holds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    run = extract(model, data, file, samples=True, maps=slice(_MAPS), overwrite=True)
    with run:
        print(f"extracted in {time.monotonic() - started:.1f} s: {', '.join(run.layers)}")
        report = verify(file, model, data)
        print(report)
        draw(run, picture, what, verified=report.ok)
    megabytes = file.stat().st_size / 1e6
    print(f"wrote {file} ({megabytes:.1f} MB) and {picture}")
    print(f"look inside: {_command()} inspect {file}")
    return report.ok


def _command() -> str:
    """How to call `fastconv` from here: its environment need not be active."""
    if shutil.which("fastconv"):
        return "fastconv"
    return os.path.relpath(Path(sys.executable).with_name("fastconv"))
