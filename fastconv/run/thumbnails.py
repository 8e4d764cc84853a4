"""Whole pictures of the samples that have a hit, reduced, so that its box can be drawn in one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastconv.measure.patches import PatchSource
from fastconv.run.job import Job

SIDE = 112  # pixels of the longer side at most


def thumbnails(job: Job, samples: Iterable[int]) -> dict[int, np.ndarray]:
    """Read these samples again: uint8 [h, w, 3] each; nothing where samples are not images."""
    if job.display is None:
        return {}
    wanted = sorted(samples)
    batches = job.source.batches([[sample] for sample in wanted])
    factor = max(1, -(-max(job.input_size) // SIDE))
    return {
        sample: PatchSource(job.transfer(inputs), job.display).whole(factor)[0]
        for sample, (inputs, _) in zip(wanted, batches, strict=True)
    }
