"""Whole pictures, reduced, of samples with a hit, whose box is drawn there, or with maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from fastconv.capture.batch import picture
from fastconv.measure.patches import PatchSource
from fastconv.run.job import Job
from fastconv.run.options import Options

SIDE = 112  # pixels of the longer side at most
SMALL = 32 << 20  # bytes, uncompressed, up to which they are kept by default


def are_kept(options: Options, length: int, input_size: Sequence[int]) -> bool:
    """Whether thumbnails were asked for, or those of all `length` samples would be small."""
    if options.thumbnails is not None:
        return options.thumbnails
    factor = _factor(input_size)
    return 3 * length * math.prod(-(-side // factor) for side in input_size) <= SMALL


def thumbnails(job: Job, samples: Iterable[int]) -> dict[int, np.ndarray]:
    """Read these samples again: uint8 [h, w, 3] each; nothing where samples are not images."""
    if job.display is None or not are_kept(job.options, len(job.source), job.input_size):
        return {}
    wanted = sorted(set(samples))
    batches = job.source.batches([[sample] for sample in wanted])
    factor = _factor(job.input_size)
    return {
        sample: PatchSource(job.transfer(picture(inputs)), job.display).whole(factor)[0]
        for sample, (inputs, _) in zip(wanted, batches, strict=True)
    }


def _factor(input_size: Sequence[int]) -> int:
    return max(1, -(-max(input_size) // SIDE))
