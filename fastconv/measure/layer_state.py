"""Everything that is measured of one layer, as mergeable running states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastconv.errors import FastconvError
from fastconv.format.result import STATUS, LayerInfo, LayerResult
from fastconv.histogram import BINS
from fastconv.measure import exact_sum
from fastconv.measure.hits import Hits, boxes
from fastconv.measure.patches import PatchPlan, PatchSource
from fastconv.measure.peaks import Peaks
from fastconv.ops.exact_add import exact_add
from fastconv.reduction import Reduction


@dataclass(frozen=True)
class Measures:
    """What is asked of every layer."""

    stats: bool
    quantiles: bool
    topk: int
    hit_sets: Mapping[str, bool]  # by name (`HIT_SETS`): whether of the largest values
    hits_per_sample: int
    patches: bool


class Totals:
    """Statistics of the samples seen: all integers, extrema and exact sums.

    They live where the reductions are, and nothing is read from there before `arrays`.
    """

    def __init__(self, channels: int, *, quantiles: bool):
        self.counts = torch.zeros((3, channels), dtype=torch.int64)  # finite, non-finite, positive
        self.low = torch.full((channels,), torch.inf)
        self.high = torch.full((channels,), -torch.inf)
        self.sum = exact_sum.empty_sums(channels)
        self.sumsq = exact_sum.empty_sums(channels)
        self.histogram = torch.zeros((channels, BINS), dtype=torch.int64) if quantiles else None
        self._overflowed = torch.zeros((), dtype=torch.bool)

    def to(self, device: torch.device | str) -> Totals:
        """Move everything, if it is not there already; returns itself."""
        if self.low.device != torch.device(device):
            for name, value in vars(self).items():
                setattr(self, name, None if value is None else value.to(device))
        return self

    def update(self, r: Reduction) -> None:
        """Add the [N, C] reductions of a batch; its histogram was counted into `histogram`."""
        self.to(r.sum.device)
        nonfinite = r.nonfinite.sum(0)
        self.counts[0] += r.count * r.nonfinite.shape[0] - nonfinite
        self.counts[1] += nonfinite
        self.counts[2] += r.positive.sum(0)
        torch.minimum(self.low, r.min.amin(0), out=self.low)
        torch.maximum(self.high, r.max.amax(0), out=self.high)
        self._overflowed |= ~r.sumsq.isfinite().all()
        exact_add(self.sum, r.sum)
        exact_add(self.sumsq, r.sumsq)

    def tensors(self) -> list[Tensor]:
        """All that batches change, in place."""
        return [value for value in vars(self).values() if value is not None]

    def arrays(self) -> dict[str, np.ndarray]:
        """As stored: see `fastconv.format.result.LayerResult.stats`.

        Raises:
            FastconvError: squares overflowed float64.
        """
        self.to("cpu")
        if self._overflowed:
            raise FastconvError("activations are too large: their squares overflow float64")
        return {
            "count": self.counts[0].numpy(),
            "nonfinite": self.counts[1].numpy(),
            "positive": self.counts[2].numpy(),
            "min": self.low.numpy(),
            "max": self.high.numpy(),
            "sum": exact_sum.canonical(self.sum.numpy()),
            "sumsq": exact_sum.canonical(self.sumsq.numpy()),
        }

    def merge(self, stats: dict[str, np.ndarray], histogram: np.ndarray | None) -> None:
        """Add stored totals."""
        self.to("cpu")
        for i, name in enumerate(("count", "nonfinite", "positive")):
            self.counts[i] += torch.from_numpy(stats[name])
        self.low = torch.minimum(self.low, torch.from_numpy(stats["min"]))
        self.high = torch.maximum(self.high, torch.from_numpy(stats["max"]))
        self.sum += torch.from_numpy(stats["sum"])
        self.sumsq += torch.from_numpy(stats["sumsq"])
        if self.histogram is not None and histogram is not None:
            self.histogram += torch.from_numpy(histogram)


class LayerState:
    """The running states of one layer, on the device of its outputs.

    `totals` covers the samples since it was last replaced; `hits`, by name, everything seen or
    merged, so that candidates that cannot be among the best any more cost nothing.
    """

    def __init__(self, info: LayerInfo, measures: Measures, input_size: tuple[int, ...]):
        self.info = info
        self._measures = measures
        self._plan = PatchPlan.create(info, input_size) if measures.patches else None
        self.totals = self.new_totals()
        self.hits = {
            name: Hits(info, measures.topk, largest=largest, plan=self._plan)
            for name, largest in measures.hit_sets.items()
        }

    def new_totals(self) -> Totals | None:
        m = self._measures
        return Totals(self.info.channels, quantiles=m.quantiles) if m.stats else None

    def histogram(self, device: torch.device) -> Tensor | bool:
        """The counts [C, bins] to add into, where the layer's output is; False if not wanted."""
        counts = None if self.totals is None else self.totals.to(device).histogram
        return False if counts is None else counts

    @property
    def nbytes(self) -> int:
        """Bytes of the largest parts of the state: histogram and pictures."""
        histogram = self.totals.histogram if self.totals is not None else None
        pictures = self.info.channels * sum(hits.k for hits in self.hits.values())
        each = 0 if self._plan is None else 3 * math.prod(self._plan.size)
        return pictures * each + (0 if histogram is None else histogram.nbytes)

    def tensors(self) -> list[Tensor]:
        """All that batches change, in place."""
        totals = [] if self.totals is None else self.totals.tensors()
        return totals + [tensor for hits in self.hits.values() for tensor in hits.tensors()]

    def update(
        self,
        r: Reduction,
        peaks: Mapping[str, Peaks],
        samples: Tensor,
        source: PatchSource,
    ) -> None:
        """Take a batch: reductions, peaks where several hits of a sample count, and inputs."""
        if self.totals is not None:
            self.totals.update(r)
        extremes = {
            name: (r.max, r.argmax) if hits.largest else (r.min, r.argmin)
            for name, hits in self.hits.items()
            if name not in peaks
        }
        single = {n: (value[..., None], at[..., None]) for n, (value, at) in extremes.items()}
        self.take_hits({**single, **peaks}, samples, source)

    def take_hits(self, peaks: Mapping[str, Peaks], samples: Tensor, source: PatchSource) -> None:
        """Take candidates alone, for the hits that they are named after."""
        for name, (values, positions) in peaks.items():
            self.hits[name].update(values, samples, positions, source)

    def merge(self, part: LayerResult) -> None:
        """Take what a part, or another run, holds of this layer."""
        if self.totals is not None:
            self.totals.merge(part.stats, part.histogram)
        self.merge_hits(part)

    def merge_hits(self, part: LayerResult) -> None:
        for name, stored, pictures in part.hit_sets():
            if pictures is not None:
                filled = np.asarray(pictures)[stored["sample"] >= 0]
                pictures = torch.from_numpy(np.ascontiguousarray(filled))
            self.hits[name].merge(
                torch.from_numpy(stored["value"]),
                torch.from_numpy(stored["sample"]),
                torch.from_numpy(flat_positions(self.info, stored["position"])),
                pictures,
            )

    def part(self, samples: range) -> LayerResult:
        """The totals since the last part, and the hits that are among the best of `samples`."""
        result = self.result(None)
        for name, stored, pictures in result.hit_sets():
            sample = stored["sample"]
            here = (sample >= samples.start) & (sample < samples.stop)
            result.set_hits(name, {**stored, "sample": np.where(here, sample, -1)}, pictures)
        return result

    def result(self, weight: np.ndarray | None) -> LayerResult:
        """Everything merged so far, as it is stored."""
        result = LayerResult(self.info, weight)
        if self.totals is not None:
            result.stats = self.totals.arrays()
            if self.totals.histogram is not None:
                result.histogram = self.totals.histogram.numpy()
        for name, hits in self.hits.items():
            result.set_hits(name, stored_hits(hits), hits.pictures())
        result.patch_plan = self._plan
        return result


def stored_hits(hits: Hits) -> dict[str, np.ndarray]:
    """The entries with positions per dimension and boxes; empty slots NaN, -1, -1, 0."""
    info = hits.info
    samples, flat = hits.samples.cpu().numpy(), hits.positions.cpu().numpy()
    empty = samples < 0
    axes = np.unravel_index(np.maximum(flat, 0), info.size) if info.size else ()
    position = np.stack(axes, -1) if axes else np.zeros((*flat.shape, 0), np.int64)
    box = boxes(info, np.maximum(flat, 0))
    position[empty] = -1
    box[empty] = 0
    return {
        "value": hits.values.cpu().numpy(),
        "sample": samples,
        "position": position.astype(np.int64),
        "box": box.astype(np.int64),
        "status": np.full(flat.shape, STATUS.index(info.status), np.uint8),
    }


def flat_positions(info: LayerInfo, position: np.ndarray) -> np.ndarray:
    """Flat positions [C, k] of stored ones [C, k, D]."""
    if not info.size:
        return np.zeros(position.shape[:-1], np.int64)
    axes = tuple(np.moveaxis(np.maximum(position, 0), -1, 0))
    return np.ravel_multi_index(axes, info.size).astype(np.int64)
