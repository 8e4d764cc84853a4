"""The second half of each demo: extract, verify, draw, report."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fastconv.demo.overview import draw
from fastconv.export.report import report
from fastconv.perturb import Perturbation
from fastconv.run.extract import extract
from fastconv.verification.verify import verify

_MAPS = 16  # samples from all over the data whose activation maps are kept


def measure_and_draw(
    model: nn.Module,
    data: Any,
    file: Path,
    *,
    picture: Path,
    page: Path,
    what: str,
    conditions: Mapping[str, Perturbation],
) -> bool:
    """Make `file` with everything on, check it, and show it; True where every check holds.

    Args:
        picture: the overview to draw, a PNG.
        page: the report to make.
        what: the data, in words.
        conditions: further measurements, by name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    run = extract(
        model,
        data,
        file,
        order="both",
        samples=True,
        outcomes=True,
        maps=[i * len(data) // _MAPS for i in range(_MAPS)],
        conditions=conditions,
        overwrite=True,
    )
    with run:
        print(f"extracted in {time.monotonic() - started:.1f} s: {', '.join(run.layers)}")
        checked = verify(file, model, data)
        print(checked)
        draw(run, picture, what, verified=checked.ok)
        report(run, page)
    megabytes = file.stat().st_size / 1e6
    print(f"wrote {file} ({megabytes:.1f} MB) and {picture}")
    print(f"look inside: {_command()} inspect {file}")
    print(f"look at every filter: open {page} in a browser")
    return checked.ok


def _command() -> str:
    """How to call `fastconv` from here: its environment need not be active."""
    if shutil.which("fastconv"):
        return "fastconv"
    return os.path.relpath(Path(sys.executable).with_name("fastconv"))
