"""The stored hits of one layer in one order, compared with what the network gives again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fastconv.capture import CaptureTarget
from fastconv.format.result import HIT_SETS
from fastconv.measure.hits import boxes
from fastconv.measure.layer_state import flat_positions
from fastconv.measure.patches import PatchPlan, PatchSource
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.reduction import Reduction
from fastconv.run.job import Job
from fastconv.run.plan import PlannedLayer
from fastconv.store.read_layer import Layer
from fastconv.verification.check import Check
from fastconv.verification.float64 import value_and_bound


@dataclass(frozen=True)
class CheckedBatch:
    """Some samples of a unit in the forward that repeats them."""

    samples: np.ndarray  # [n], the sample of each row, ascending
    source: PatchSource


class HitSetCheck:
    """Compares the chosen hits of one set.

    Attributes:
        exact: whether the same software and machine made the file: no slack.

    Args:
        layer: as stored.
        name: of the set of hits.
        hits: how many to check, evenly chosen; None for all.
        under: name of the condition under which the layer was measured.
    """

    exact: bool = False

    def __init__(
        self,
        job: Job,
        planned: PlannedLayer,
        layer: Layer,
        name: str,
        hits: int | None,
        under: str | None,
    ):
        which = "hits" if name == "topk" else f"{name} hits"
        self._name = f"{planned.info.name} {which}" + (f" under {under}" if under else "")
        self._info, self._target, self._fused = planned.info, planned.target, planned.fused
        self._job, self._largest = job, job.options.hit_sets[name]
        self._hits = getattr(layer, name)
        pictures = HIT_SETS[name]
        self._patches = getattr(layer, pictures)[()] if pictures in layer.holds else None
        self._chosen = _choose(self._hits.sample, hits)  # [C, k] bool
        self.forget()

    def forget(self) -> None:
        """Start anew: nothing was compared."""
        self._checked = 0
        self._worst = 0.0  # largest share of the float64 bound that was used
        self._wrong: dict[str, list[str]] = {}

    def units(self, batch_size: int) -> set[int]:
        return {int(u) for u in np.unique(self._hits.sample[self._chosen] // batch_size)}

    def samples_in(self, unit: range) -> set[int]:
        hits = self._hits.sample
        here = self._chosen & (hits >= unit.start) & (hits < unit.stop)
        return set(hits[here].tolist())

    def compare(
        self,
        value: Tensor,
        left: CaptureTarget,
        batch: CheckedBatch,
        module: nn.Module | None,
        inputs: Tensor | None,
    ) -> None:
        """Compare the hits of a batch.

        Args:
            value: [n, C, *spatial], what the network gave.
            left: what is left to apply to it.
            module: the convolution, where its value can be told in float64.
            inputs: of the convolution.
        """
        hits = self._hits
        filters, ranks = (self._chosen & np.isin(hits.sample, batch.samples)).nonzero()
        if not len(filters):
            return
        rows = np.searchsorted(batch.samples, hits.sample[filters, ranks])
        self._checked += len(filters)
        stored = torch.from_numpy(hits.values[filters, ranks]).double()
        position = hits.position[filters, ranks]
        size = np.array(self._info.size, np.int64)
        inside = np.all((position >= 0) & (position < size), -1)  # [M]
        at = torch.from_numpy(flat_positions(self._info, np.where(inside[:, None], position, 0)))
        plane = value.flatten(2) if value.ndim > 2 else value[..., None]
        plane = plane[rows, filters].cpu()  # [M, P]
        reduced = _reduce(plane, left, filters)
        again = _reduce(plane.gather(1, at[:, None]), left, filters).max[0].double()
        slack = self._slack(reduced)
        rounded = self._fused and value.dtype != torch.float32
        told = stored.to(value.dtype).double() if rounded else stored
        wrong = ((again - told).abs() > slack).numpy() | ~inside
        self._note("value", wrong, filters, ranks)
        if self._job.options.hits_per_sample == 1:
            misplaced = self._misplaced(reduced, again, at, slack, ties=not rounded)
            self._note("position", misplaced, filters, ranks)
        box = boxes(self._info, at.numpy())
        differ = (box != hits.box[filters, ranks]).any((-1, -2))
        self._note("box", differ, filters, ranks)
        if self._patches is not None:
            self._compare_patches(filters, ranks, rows, box, batch.source)
        if module is not None and inputs is not None:
            exact, bound = value_and_bound(
                self._target, module, inputs, filters, rows, at, self._job.options.dtype
            )
            bound = bound + slack
            error = (stored - exact).abs()
            self._worst = max(self._worst, float((error / bound.clamp_min(1e-300)).max()))
            self._note("float64", (error > bound).numpy(), filters, ranks)

    def _slack(self, reduced: Reduction) -> Tensor:
        """[M]: how far the network's own forward may be off; 0 where the same software runs."""
        if self.exact:
            return torch.zeros(reduced.max.shape[1], dtype=torch.float64)
        relative = 1e-4 if self._job.options.dtype in (None, "float32") else 5e-2
        largest = torch.maximum(reduced.max[0].abs(), reduced.min[0].abs())
        return relative * largest.double().clamp_min(1e-6)

    def _misplaced(
        self, reduced: Reduction, here: Tensor, at: Tensor, slack: Tensor, *, ties: bool
    ) -> np.ndarray:
        """True where the stored position is not that of the first best value of its sample.

        Values that were rounded after they were measured may tie where they did not.
        """
        best = (reduced.max if self._largest else reduced.min)[0].double()
        first = (reduced.argmax if self._largest else reduced.argmin)[0]
        later = (here == best) & (at > first) & ties
        return (((best - here).abs() > slack) | later).numpy()

    def _compare_patches(
        self,
        filters: np.ndarray,
        ranks: np.ndarray,
        rows: np.ndarray,
        box: np.ndarray,
        source: PatchSource,
    ) -> None:
        assert self._patches is not None
        plan = PatchPlan.create(self._info, self._job.input_size)
        again = source.cut(plan, torch.from_numpy(rows), plan.start(box)).numpy()
        kept = self._patches[filters, ranks]
        differ = (again != kept) & ~((again != again) & (kept != kept))
        self._note("picture", differ.reshape(len(filters), -1).any(1), filters, ranks)

    def _note(self, kind: str, bad: np.ndarray, filters: np.ndarray, ranks: np.ndarray) -> None:
        for i in np.flatnonzero(bad):
            self._wrong.setdefault(kind, []).append(f"filter {filters[i]} rank {ranks[i]}")

    def verdict(self) -> Check:
        if self._wrong:
            kinds = [f"{k} of {_some(v)}" for k, v in self._wrong.items()]
            return Check(self._name, ok=False, detail=f"wrong: {'; '.join(kinds)}")
        how = "bit for bit" if self.exact else "within the rounding of other software"
        detail = f"{self._checked} recomputed {how}"
        if self._worst > 0:
            detail += f", and in float64 (worst {self._worst:.0%} of the bound)"
        return Check(self._name, ok=True, detail=detail)


def _choose(samples: np.ndarray, hits: int | None) -> np.ndarray:
    """[C, k] bool: the hits to check, evenly chosen; all without a number."""
    filled = np.flatnonzero(samples.ravel() >= 0)
    if hits is not None and hits < len(filled):
        filled = filled[np.linspace(0, len(filled) - 1, hits).astype(int)]
    chosen = np.zeros(samples.size, bool)
    chosen[filled] = True
    return chosen.reshape(samples.shape)


def _reduce(plane: Tensor, target: CaptureTarget, filters: np.ndarray) -> Reduction:
    """[1, M] reductions of planes [M, P], each with the affine map of its filter."""
    scale, shift = (None if t is None else t.cpu()[filters] for t in (target.scale, target.shift))
    return channel_reduce(plane[None], scale=scale, shift=shift, activation=target.activation)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
