"""Two processes that run `extract` on one output, started at once or one late, again and again.

Started by `tests/test_races.py` as a process of its own, which has no threads when it forks.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import fastconv
from fastconv.errors import OutputError
from fastconv.run import save_clock
from fastconv.store import write_maps
from helpers.networks import datasets, images, network

torch.set_num_threads(1)
save_clock.MIN_SECONDS = save_clock.COST_FACTOR = save_clock.ELAPSED_SHARE = 0  # save every batch
write_maps.INSIDE = 70_000  # bytes: the second layer keeps its maps beside the run
MODEL, DATA = network(), TensorDataset(images(40), torch.arange(40))
OPTIONS = {"layers": ["0", "5"], "samples": True, "maps": "all", "batch_size": 8, "progress": False}


def attempt(out: Path) -> str:
    """How `extract` ended, in words."""
    try:
        with fastconv.extract(MODEL, DATA, out, **OPTIONS) as run:
            return "done" if run.damaged() == [] else "damaged"
    except OutputError as error:
        return str(error)


def together(work: Callable[[], str], late: float) -> list[str]:
    """What two children return that start at once, or one of them so many seconds late."""
    go, answer = os.pipe(), os.pipe()
    for delay in (0, late):
        if os.fork() == 0:
            os.close(go[1])
            os.read(go[0], 1)  # until the parent closes the other end
            time.sleep(delay)
            os.write(answer[1], (work() + "\n").encode())
            os._exit(0)
    os.close(go[1])
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)]
    assert codes == [0, 0], codes
    said = os.read(answer[0], 2**16).decode().splitlines()
    for end in (go[0], *answer):
        os.close(end)
    return said


def files(out: Path) -> dict[str, object]:
    return {path.name: datasets(path) for path in (out, *sorted(out.parent.glob("run.maps/*")))}


def main(folder: Path, repetitions: int) -> None:
    whole, out = folder / "whole" / "run.h5", folder / "both" / "run.h5"
    whole.parent.mkdir()
    assert attempt(whole) == "done"  # what is loaded on first use is there when children fork
    expected, outcomes = files(whole), []
    began = time.monotonic()
    assert attempt(folder / "again.h5") == "done"
    seconds = time.monotonic() - began
    for i in range(repetitions):
        out.parent.mkdir()
        late = seconds * max(0, 2 * i - repetitions) / repetitions  # at once in the first half
        outcomes.append(sorted(together(lambda: attempt(out), late)))
        assert files(out) == expected
        assert sorted(p.name for p in out.parent.iterdir()) == ["run.h5", "run.maps"]
        shutil.rmtree(out.parent)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
