"""Whole pictures, reduced, of samples with a hit, whose box is drawn there, or with maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fastconv.capture.batch import picture
from fastconv.measure.patches import PatchSource
from fastconv.run.job import Job
from fastconv.run.options import Options
from fastconv.store.parts import Part, PartWriter

SIDE = 112  # pixels of the longer side at most
_PLACE = "thumbnails"  # in a part
TOGETHER = 16  # samples that are read at a time
SMALL = 32 << 20  # bytes, uncompressed, up to which they are kept by default


def are_kept(options: Options, length: int, input_size: Sequence[int]) -> bool:
    """Whether thumbnails were asked for, or those of all `length` samples would be small."""
    if options.thumbnails is not None:
        return options.thumbnails
    factor = _factor(input_size)
    return 3 * length * math.prod(-(-side // factor) for side in input_size) <= SMALL


def read_thumbnails(job: Job, samples: Iterable[int]) -> dict[int, np.ndarray]:
    """Read these samples again: uint8 [h, w, 3] each; nothing where samples are not images."""
    assert job.source.length is not None
    if job.display is None or not are_kept(job.options, job.source.length, job.input_size):
        return {}
    wanted = sorted(set(samples))
    units = [wanted[i : i + TOGETHER] for i in range(0, len(wanted), TOGETHER)]
    found: dict[int, np.ndarray] = {}
    for unit, (inputs, _) in zip(units, job.source.batches(units), strict=True):
        pictures = _reduced(job, job.transfer(picture(inputs)))
        found.update(zip(job.source.kept(unit), pictures, strict=True))
    return found


class ThumbnailRows:
    """Thumbnails of a stream, which is not read again: those that may be needed go to parts.

    A sample that has a hit at the end had it when it was measured.
    """

    def __init__(self, job: Job, part: Callable[[], PartWriter]):
        self._job, self._part = job, part
        self._seen: dict[int, np.ndarray] = {}  # of the unit at hand

    def see(self, samples: Sequence[int], inputs: Any) -> None:
        """Reduce the inputs, before a model may write to them."""
        if self._job.source.by_index or not self._may_be_kept(max(samples)):
            return
        self._seen.update(zip(samples, _reduced(self._job, picture(inputs)), strict=True))

    def keep(self, to_be_shown: Callable[[list[int]], list[int]]) -> None:
        """Add to the part those of the unit that may be needed, and forget the others."""
        chosen = to_be_shown([*self._seen]) if self._seen else []
        if chosen:
            part, kept = self._part(), [self._seen[sample] for sample in chosen]
            part.append(f"{_PLACE}/sample", np.asarray(chosen, np.int64))
            part.append(f"{_PLACE}/size", np.asarray([p.shape[:2] for p in kept], np.int64))
            part.append(f"{_PLACE}/pixels", np.concatenate([p.ravel() for p in kept]))
        self._seen = {}

    def of(self, samples: Collection[int], parts: Sequence[Part]) -> dict[int, np.ndarray]:
        """Thumbnails of these samples, now that the end of the stream is known."""
        assert self._job.source.length is not None
        if not self._may_be_kept(self._job.source.length):
            return {}
        found: dict[int, np.ndarray] = {}
        for part in parts:
            held, size, pixels = (part.rows(f"{_PLACE}/{n}") for n in ("sample", "size", "pixels"))
            if held is None or size is None or pixels is None:
                continue
            ends = np.cumsum(3 * size.prod(1))
            for sample, shape, end in zip(held.tolist(), size.tolist(), ends.tolist(), strict=True):
                if sample in samples:
                    picture = pixels[end - 3 * math.prod(shape) : end]
                    found[sample] = picture.reshape(*shape, 3)
        return dict(sorted(found.items()))

    def _may_be_kept(self, length: int) -> bool:
        job = self._job
        return job.display is not None and are_kept(job.options, length, job.input_size)


def _reduced(job: Job, pictures: Tensor) -> np.ndarray:
    """uint8 [n, h, w, 3] of pictures [n, C, H, W] where the model runs."""
    return PatchSource(pictures, job.display).whole(_factor(job.input_size))


def _factor(input_size: Sequence[int]) -> int:
    return max(1, -(-max(input_size) // SIDE))
