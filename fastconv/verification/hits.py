"""Recompute stored hits from the model and the data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastconv.capture import CaptureTarget
from fastconv.capture.fusion import CONVOLUTIONS
from fastconv.errors import DataError
from fastconv.format.result import LayerInfo
from fastconv.geometry import ConvGeometry
from fastconv.measure.hits import boxes
from fastconv.measure.layer_state import flat_positions
from fastconv.measure.patches import PatchPlan, PatchSource
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.gather_patches import gather_patches
from fastconv.reduction import Reduction
from fastconv.run.job import Job
from fastconv.run.plan import FUSED, run_fused
from fastconv.store.reader import Run


@dataclass(frozen=True)
class Check:
    """One thing that was checked: what, whether it holds, and how it was found out."""

    name: str
    ok: bool
    detail: str


@dataclass
class _Found:
    """What recomputing the hits of one layer has shown."""

    checked: int = 0
    worst: float = 0.0  # largest share of the float64 bound that was used
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, bad: np.ndarray, filters: np.ndarray, ranks: np.ndarray) -> None:
        for i in np.flatnonzero(bad):
            self.wrong.setdefault(kind, []).append(f"filter {filters[i]} rank {ranks[i]}")


class HitChecker:
    """Runs the network over the batches of the stored hits and compares."""

    def __init__(self, run: Run, job: Job, *, exact: bool):
        fewer = run.config.get("samples_at_a_time")  # from some batch on
        job.rows = fewer or job.rows
        self._job, self._exact = job, exact and fewer is None
        self._hits = [run[t.info.name].topk for t in job.targets]
        self._patches = [_patches(run, t.info.name) for t in job.targets]
        self._found: list[_Found] = []
        self._plain = [_is_plain(t, job.model) for t in job.targets]
        self._inputs: dict[str, Tensor] = {}  # the input of the last call of every convolution

    def check(self, hits: int | None) -> Iterator[Check]:
        """Recompute that many hits of every layer; with fewer samples at a time where memory ends,
        and then not bit for bit, for a forward may round by their number.
        """
        chosen = [self._choose(h.sample, hits) for h in self._hits]
        while True:
            try:
                self._check_units(chosen)
                break
            except torch.OutOfMemoryError as error:
                self._job.take_fewer(error)
                self._exact = False
            torch.cuda.empty_cache()
        for target, found in zip(self._job.targets, self._found, strict=True):
            yield self._verdict(target, found)

    def _check_units(self, chosen: list[np.ndarray]) -> None:
        self._found = [_Found() for _ in self._job.targets]
        units = self._job.options.units(len(self._job.source))
        size = self._job.options.batch_size
        needed = sorted(
            {
                int(u)
                for h, c in zip(self._hits, chosen, strict=True)
                for u in np.unique(h.sample[c] // size)
            }
        )
        with self._keeping_inputs():
            batches = self._job.source.batches([units[u] for u in needed])
            for unit, (inputs, _) in zip(needed, batches, strict=True):
                kept = self._job.source.kept(units[unit])
                for h, c in zip(self._hits, chosen, strict=True):
                    self._rows(units[unit], h.sample[c & (h.sample // size == unit)])
                for rows in self._job.pieces(len(kept)):
                    first = kept[rows.start] if rows.start else units[unit].start
                    stop = kept[rows.stop] if rows.stop < len(kept) else units[unit].stop
                    self._check_samples(range(first, stop), inputs[rows], chosen)

    @staticmethod
    def _choose(samples: np.ndarray, hits: int | None) -> np.ndarray:
        """[C, k] bool: the hits to check."""
        filled = np.flatnonzero(samples.ravel() >= 0)
        if hits is not None and hits < len(filled):
            filled = filled[np.linspace(0, len(filled) - 1, hits).astype(int)]
        chosen = np.zeros(samples.size, bool)
        chosen[filled] = True
        return chosen.reshape(samples.shape)

    @contextlib.contextmanager
    def _keeping_inputs(self) -> Iterator[None]:
        handles = []
        for path in {t.info.module_path for t in self._job.targets if t.info.kernel is not None}:

            def keep(module: nn.Module, args: tuple[Any, ...], path: str = path) -> None:
                self._inputs[path] = args[0]

            handles.append(self._job.model.get_submodule(path).register_forward_pre_hook(keep))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _check_samples(self, unit: range, inputs: Tensor, chosen: list[np.ndarray]) -> None:
        inputs = self._job.feed(inputs)
        source = PatchSource(inputs, self._job.state.display)

        def compare(index: int, value: Tensor, target: CaptureTarget) -> None:
            hits = self._hits[index]
            here = chosen[index] & (hits.sample >= unit.start) & (hits.sample < unit.stop)
            filters, ranks = here.nonzero()
            if len(filters):
                rows = self._rows(unit, hits.sample[filters, ranks])
                self._compare(index, value, target, filters, ranks, rows, source)

        def convolve(index: int, x: Tensor) -> Tensor:
            target, backend = self._job.targets[index], self._job.options.backend
            run = partial(run_fused, target, x, histogram=False, return_activation=True)
            value = run(backend=backend).activation
            assert value is not None and target.fusion is not None
            compare(index, value, replace(target, scale=None, shift=None, activation=None))
            if target.fusion.onward is not None:
                value = run(onward=target.fusion.onward, backend=backend).activation
                assert value is not None
            return value

        self._job.forward(inputs, lambda i, v: compare(i, v, self._job.targets[i]), convolve)

    def _rows(self, unit: range, samples: np.ndarray) -> np.ndarray:
        """Where the samples are in the batch of their unit."""
        kept = self._job.source.kept(unit)
        for sample in set(samples.tolist()) - set(kept):
            raise DataError(f"a hit is of it, but {self._job.source.skipped[sample]}")
        return np.searchsorted(kept, samples)

    def _compare(
        self,
        index: int,
        value: Tensor,
        left: CaptureTarget,  # what is left to apply to the value
        filters: np.ndarray,
        ranks: np.ndarray,
        rows: np.ndarray,
        source: PatchSource,
    ) -> None:
        target, hits, found = self._job.targets[index], self._hits[index], self._found[index]
        info = target.info
        found.checked += len(filters)
        stored = torch.from_numpy(hits.values[filters, ranks]).double()
        position = hits.position[filters, ranks]
        inside = ((position >= 0) & (position < np.array(info.size, np.int64))).all(-1)
        at = torch.from_numpy(flat_positions(info, np.where(inside[:, None], position, 0)))
        plane = value.flatten(2) if value.ndim > 2 else value[..., None]
        plane = plane[rows, filters].cpu()  # [M, P]
        reduced = self._reduce(plane, left, filters)
        again = self._reduce(plane.gather(1, at[:, None]), left, filters).max[0].double()
        slack = self._slack(reduced)
        rounded = info.measured_by == FUSED and value.dtype != torch.float32
        told = stored.to(value.dtype).double() if rounded else stored
        wrong = ((again - told).abs() > slack).numpy() | ~inside
        found.note("value", wrong, filters, ranks)
        if self._job.options.hits_per_sample == 1:
            misplaced = self._misplaced(reduced, again, at, slack, ties=not rounded)
            found.note("position", misplaced, filters, ranks)
        box = boxes(info, at.numpy())
        found.note("box", (box != hits.box[filters, ranks]).any((-1, -2)), filters, ranks)
        if self._patches[index] is not None:
            self._compare_patches(index, filters, ranks, rows, box, source)
        if self._plain[index]:
            exact, bound = self._in_float64(target, filters, rows, at)
            bound = bound + slack
            error = (stored - exact).abs()
            found.worst = max(found.worst, float((error / bound.clamp_min(1e-300)).max()))
            found.note("float64", (error > bound).numpy(), filters, ranks)

    def _reduce(self, plane: Tensor, target: CaptureTarget, filters: np.ndarray) -> Reduction:
        """[1, M] reductions of planes [M, P], each with the affine map of its filter."""
        scale, shift = (
            None if t is None else t.cpu()[filters] for t in (target.scale, target.shift)
        )
        return channel_reduce(plane[None], scale=scale, shift=shift, activation=target.activation)

    def _slack(self, reduced: Reduction) -> Tensor:
        """[M]: how far the network's own forward may be off; 0 where the same software runs."""
        if self._exact:
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
        largest = self._job.options.order == "largest"
        best = (reduced.max if largest else reduced.min)[0].double()
        first = (reduced.argmax if largest else reduced.argmin)[0]
        later = (here == best) & (at > first) & ties
        return (((best - here).abs() > slack) | later).numpy()

    def _compare_patches(self, index, filters, ranks, rows, box, source) -> None:
        info = self._job.targets[index].info
        plan = PatchPlan.create(info, self._job.input_size)
        again = source.cut(plan, torch.from_numpy(rows), plan.start(box)).numpy()
        kept = self._patches[index][filters, ranks]
        differ = (again != kept) & ~((again != again) & (kept != kept))
        wrong = differ.reshape(len(filters), -1).any(1)
        self._found[index].note("picture", wrong, filters, ranks)

    def _in_float64(
        self, target: CaptureTarget, filters: np.ndarray, rows: np.ndarray, at: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The stage's value at one position of each hit, and the bound of its float32 rounding."""
        info = target.info
        module: Any = self._job.model.get_submodule(info.module_path)
        x = self._inputs[info.module_path].detach().cpu()
        window, weight = _windows(info, module, x, filters, rows, at)
        conv = (window * weight).flatten(1).sum(1)
        size = (window * weight).abs().flatten(1).sum(1)
        if module.bias is not None:
            bias = module.bias.detach().cpu().double()[filters]
            conv, size = conv + bias, size + bias.abs()
        scale, shift = torch.ones_like(conv), torch.zeros_like(conv)
        if target.scale is not None and target.shift is not None:
            scale, shift = (t.cpu().double()[filters] for t in (target.scale, target.shift))
        value = conv * scale + shift
        unit = _unit_roundoff(self._inputs[info.module_path].dtype, self._job.options.dtype)
        bound = (window[0].numel() + 2) * 2.0**-24 * size + unit * (size + conv.abs())
        bound = bound * scale.abs() + 2.0**-22 * (value.abs() + shift.abs())
        if target.activation is not None:
            value = getattr(F, target.activation)(value)
            bound = bound * 1.2 + 2.0**-20 * value.abs() + 2.0**-20  # slopes stay below 1.2
        return value, bound

    def _verdict(self, target: CaptureTarget, found: _Found) -> Check:
        name = f"{target.info.name} hits"
        if found.wrong:
            kinds = [f"{k} of {_some(v)}" for k, v in found.wrong.items()]
            return Check(name, ok=False, detail=f"wrong: {'; '.join(kinds)}")
        how = "bit for bit" if self._exact else "within the rounding of other software"
        detail = f"{found.checked} recomputed {how}"
        if found.worst > 0:
            detail += f", and in float64 (worst {found.worst:.0%} of the bound)"
        return Check(name, ok=True, detail=detail)


def _is_plain(target: CaptureTarget, model: nn.Module) -> bool:
    """True where the hooked value is that of a zero-padded convolution as torch has it."""
    if target.info.kernel is None or target.info.transposed:
        return False
    module: Any = model.get_submodule(target.info.module_path)
    return (
        module is target.module  # else that of a norm or an activation after it
        and module.padding_mode == "zeros"
        and not module._forward_hooks
        and "forward" not in vars(module)
        and any(
            type(module).forward is kind.forward
            and type(module)._conv_forward is kind._conv_forward  # type: ignore[attr-defined]
            for kind in CONVOLUTIONS
        )
    )


def _windows(
    info: LayerInfo, module: Any, x: Tensor, filters: np.ndarray, rows: np.ndarray, at: Tensor
) -> tuple[Tensor, Tensor]:
    """What the convolution multiplies at each hit: two float64 [M, C_in/groups, *kernel]."""
    assert info.kernel and info.stride and info.padding and info.dilation and info.groups
    position = np.stack(np.unravel_index(at.numpy(), info.size), -1)  # [M, D]
    before = np.array([pad[0] for pad in info.padding])
    start = torch.from_numpy(position * np.array(info.stride) - before)
    extent = ConvGeometry.create(info.kernel, dilation=info.dilation).extent
    window = gather_patches(x, torch.from_numpy(rows), start, extent)
    window = window[(slice(None), slice(None), *(slice(None, None, d) for d in info.dilation))]
    weight = module.weight.detach().cpu()[filters].double()  # [M, C_in/groups, *kernel]
    group = torch.from_numpy(filters) // (info.channels // info.groups)
    first = group * weight.shape[1]
    channel = first[:, None] + torch.arange(weight.shape[1])
    return window[torch.arange(len(filters))[:, None], channel].double(), weight


def _unit_roundoff(value: torch.dtype, autocast: str | None) -> float:
    """Of the type that inputs, weights and output of the convolution were rounded to."""
    name = autocast or str(value).removeprefix("torch.")
    return {"bfloat16": 2.0**-7, "float16": 2.0**-10}.get(name, 2.0**-23)


def _patches(run: Run, name: str) -> np.ndarray | None:
    layer = run[name]
    return layer.patches[()] if "patches" in layer.holds else None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
