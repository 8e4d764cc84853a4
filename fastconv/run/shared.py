"""One run, measured by several processes that share its folder of parts.

Batches are independent and parts merge exactly, so the result does not depend on who measured
what. Nothing but the file system is shared: a process may die, and another take its place.
"""

from __future__ import annotations

import time

import torch

from fastconv.engines.ranks import Rank
from fastconv.errors import FastconvError
from fastconv.run.claims import Claims
from fastconv.run.job import Job
from fastconv.run.progress import Progress
from fastconv.run.recording import Recording
from fastconv.store.parts import PartsFolder

PAUSE = 0.2  # seconds between looks at what the others have finished


def measure_shared(
    job: Job, folder: PartsFolder, rank: Rank, num_workers: int, *, progress: bool
) -> None:
    """Measure what no other process has claimed, until every unit is in a part."""
    units = job.units
    claims = Claims(folder, units.total, rank)
    recording = Recording(job, folder, units.own)
    enabled = progress and rank.number == 0
    try:
        with Progress(job.source.length, enabled=enabled) as bar, recording:
            shown = 0
            while not claims.finished():
                share = claims.take()
                if share is not None:
                    _measure(job, folder, recording, share, num_workers)
                else:
                    recording.save()
                if not recording.unsaved:
                    claims.release()
                if share is None:
                    time.sleep(PAUSE)
                units.learn_end(folder)
                claims.total = units.total
                seen = units.samples_done(folder)
                bar.update(seen - shown)
                shown = seen
    except torch.OutOfMemoryError as error:
        raise FastconvError(
            f"{job.options.batch_size} samples are too many for the memory of {job.device}; "
            "with several processes the batch is not divided: give a smaller batch_size"
        ) from error
    finally:
        claims.release()


def _measure(
    job: Job, folder: PartsFolder, recording: Recording, share: range, num_workers: int
) -> None:
    done = folder.done()
    todo = [number for number in share if number not in done]
    if not job.source.by_index:
        num_workers = 0  # a worker would begin the stream anew for every share
    for batch in job.units.read(todo, folder, num_workers):
        recording.take(*batch)
