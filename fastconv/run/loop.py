"""The work of a run: unit after unit, until none is left."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fastconv.errors import FingerprintError, OutputError
from fastconv.run.job import Job
from fastconv.run.progress import Progress
from fastconv.run.recording import Recording
from fastconv.store.parts import PartsFolder


def measure(job: Job, folder: PartsFolder, num_workers: int, *, progress: bool) -> Recording:
    """Measure the units that no part holds yet; with fewer samples at a time where memory ends."""
    recording = Recording(job, folder, job.units.own)
    if not job.source.skip:
        refuse_skipped(recording.skipped(), folder.path)
    if job.options.maps is not None:
        _announce(folder.path, *recording.maps_size(), progress=progress)
    while True:
        try:
            _measure_units(job, folder, recording, num_workers, progress=progress)
            break
        except torch.OutOfMemoryError as error:
            job.take_fewer(error)
        torch.cuda.empty_cache()  # now that the error holds no tensors any more
        recording = Recording(job, folder, job.units.own)  # a unit was half taken
    if progress and (skipped := recording.skipped()):
        why = job.source.skipped.get(skipped[0], f"sample {skipped[0]}")
        print(f"{len(skipped):,} samples were skipped: {why}", file=sys.stderr, flush=True)
    return recording


def refuse_skipped(skipped: Sequence[int], where: Path | str) -> None:
    if len(skipped):
        raise FingerprintError(
            f"{where} was made with on_error='skip' and lacks {len(skipped)} samples ({skipped[0]} "
            "...); allow that again, or start anew (overwrite=True, --overwrite)"
        )


def _measure_units(
    job: Job, folder: PartsFolder, recording: Recording, num_workers: int, *, progress: bool
) -> None:
    own = job.units.own
    samples = None if own is None else len(job.units.samples(own))
    batches = job.units.read(recording.todo, folder, num_workers)
    with (
        Progress(samples, enabled=progress, done=recording.samples_done) as bar,
        _interruptible() as interrupted,
        contextlib.ExitStack() as left,
    ):
        left.push(recording)
        for number, unit, inputs, labels in batches:
            recording.take(number, unit, inputs, labels)
            bar.update(len(unit))
            if interrupted():
                raise KeyboardInterrupt
        recording.end()
        left.pop_all()  # the result is still to be read


def _announce(folder: Path, words: str, needed: float, *, progress: bool) -> None:
    """Say how big the maps will be, and refuse what the disk cannot hold."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{words}; with the parts of the run about {needed / 1e9:.3g} GB are needed, the disk "
            f"of {folder.parent} has {free / 1e9:.3g} GB free; keep fewer maps or make room"
        )
    if progress:
        print(words, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[Any]:
    """Ctrl-C ends the run after the current unit, whose work is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed: list[int] = []

    def note(signum: int, frame: Any) -> None:
        if pressed:  # a second time: at once
            raise KeyboardInterrupt
        pressed.append(signum)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
