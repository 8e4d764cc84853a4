"""Runs of `extract` in forked children, to be killed by the hundred: nothing is imported again.

Started by `tests/test_faults.py` as a process of its own, which has no threads when it forks.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
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
OPTIONS = {
    "layers": ["0", "5"],
    "order": "both",
    "samples": True,
    "maps": slice(0, 40, 2),
    "batch_size": 8,
    "progress": False,
}
MODEL, DATA = network(), TensorDataset(images(40), torch.arange(40))
FAULTS = ctypes.CDLL(os.environ["LD_PRELOAD"])


def extract(out: Path) -> None:
    fastconv.extract(MODEL, DATA, out, **OPTIONS)


def fork(work: Callable[[], object]) -> int:
    """Run something in a child that ends as a process does; returns its id."""
    child = os.fork()
    if child == 0:
        work()
        sys.exit(0)
    return child


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counted(out: Path) -> int:
    """The calls that a whole run makes."""
    reader, writer = os.pipe()

    def work() -> None:
        FAULTS.faults_arm(0, 0)
        extract(out)
        os.write(writer, str(FAULTS.faults_calls()).encode())

    assert wait(fork(work)) == 0
    return int(os.read(reader, 100))


def files(out: Path) -> dict[str, object]:
    """All datasets of a run, those of its maps files too."""
    found = [out, *sorted(out.parent.glob("run.maps/*"))]
    return {path.name: datasets(path) for path in found}


def attempt(out: Path) -> None:
    """One line, as the command line has it, for a disk that fails."""
    try:
        extract(out)
    except OutputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def fail(folder: Path, code: int) -> None:
    """A disk that fails from the n-th call on, for many n; each run is resumed on a good disk."""
    whole, out = folder / "whole" / "run.h5", folder / "run" / "run.h5"
    whole.parent.mkdir()
    extract(whole)
    expected = files(whole)
    calls, codes = counted(folder / "run.h5"), []
    for n in range(2, calls, max(1, calls // 12)):
        out.parent.mkdir(exist_ok=True)
        before = set(out.parent.glob("run.h5.parts/u*.h5"))
        FAULTS.faults_arm(n, code)
        child = fork(lambda: attempt(out))
        FAULTS.faults_arm(0, 0)
        codes.append(wait(child))
        assert codes[-1] in (0, 2), (n, codes)
        left = {p.name for p in out.parent.iterdir()}
        if codes[-1] == 2 and not out.exists():
            assert left <= {"run.h5.parts"}, left
            assert not list(out.parent.glob("run.h5.parts/tmp*"))
            assert before <= set(out.parent.glob("run.h5.parts/u*.h5"))
            continue
        assert files(out) == expected
        shutil.rmtree(out.parent)
    out.parent.mkdir(exist_ok=True)
    extract(out)
    assert files(out) == expected
    print(json.dumps({"codes": codes, "calls": calls}))


def kill(folder: Path, kills: int, how: str) -> None:
    clock, whole, out = random.Random(how), folder / "whole" / "run.h5", folder / "run" / "run.h5"
    for path in (whole, out):
        path.parent.mkdir()
    extract(whole)  # what is loaded and made on first use is there when children are forked
    shutil.rmtree(whole.parent)
    whole.parent.mkdir()
    calls = counted(whole)
    expected = files(whole)
    began = time.monotonic()
    assert wait(fork(lambda: extract(out))) == 0
    seconds = min(2.0, time.monotonic() - began)
    killed = finished = kept = 0
    while killed < kills:
        if out.exists():  # it must be right, and the next one starts anew
            assert files(out) == expected
            shutil.rmtree(out.parent)
            out.parent.mkdir()
            finished += 1
        before = set(out.parent.glob("run.h5.parts/u*.h5"))
        if how == "at a moment":
            child = fork(lambda: extract(out))
            time.sleep(clock.uniform(0, seconds / 2))
            os.kill(child, signal.SIGKILL)
        else:
            FAULTS.faults_arm(clock.randint(1, calls // 2), 0)
            child = fork(lambda: extract(out))
            FAULTS.faults_arm(0, 0)
        killed += (code := wait(child)) == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), code
        after = set(out.parent.glob("run.h5.parts/u*.h5"))
        assert out.exists() or before <= after, before - after  # nothing finished was lost
        kept += len(after) > 0
    assert wait(fork(lambda: extract(out))) == 0
    assert files(out) == expected
    assert sorted(p.name for p in out.parent.iterdir()) == ["run.h5", "run.maps"]
    print(json.dumps({"killed": killed, "finished": finished, "kept": kept, "calls": calls}))


if __name__ == "__main__":
    what, place, *rest = sys.argv[1:]
    if what == "kill":
        kill(Path(place), int(rest[0]), rest[1])
    else:
        fail(Path(place), int(rest[0]))
