"""Recompute stored hits and outcomes from the model and the data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.capture.batch import picture, rows_of
from fastconv.errors import DataError
from fastconv.measure.patches import PatchSource
from fastconv.run.condition import Condition
from fastconv.run.job import Job
from fastconv.store.reader import Run
from fastconv.verification.check import Check
from fastconv.verification.hit_set_check import CheckedBatch, HitSetCheck
from fastconv.verification.layer_check import LayerCheck
from fastconv.verification.outcome_check import OutcomeCheck


@dataclass
class _Group:
    """The checks of the samples as they are, or under one condition."""

    condition: Condition | None
    layers: list[LayerCheck]


class HitChecker:
    """Runs the network over batches of stored hits, unchanged and under every condition."""

    def __init__(self, run: Run, job: Job, hits: int | None, *, exact: bool):
        self._job, self._hits = job, hits
        fewer = run.config.get("samples_at_a_time")  # from some batch on
        job.samples_at_a_time = fewer or job.samples_at_a_time
        self._exact = exact and fewer is None
        self._groups = []
        for condition in (None, *job.conditions) if job.options.topk else ():
            under = None if condition is None else condition.name
            stored = [run[planned.info.name] for planned in job.layers]
            if under is not None:
                stored = [layer.condition(under) for layer in stored]
            layers = [
                LayerCheck(job, planned, layer, hits, under)
                for planned, layer in zip(job.layers, stored, strict=True)
            ]
            self._groups.append(_Group(condition, layers))
        self._outcomes = OutcomeCheck(run.outcomes, job) if job.options.outcomes else None

    def check(self) -> list[Check]:
        """Recompute and compare.

        With fewer samples at a time where memory ends, and then not bit for bit, for a forward may
        round by their number.
        """
        while True:
            checks: list[HitSetCheck | OutcomeCheck] = [
                found for layer in self._layers() for found in layer.sets
            ]
            checks += [] if self._outcomes is None else [self._outcomes]
            for check in checks:
                check.exact = self._exact
                check.forget()
            try:
                self._check_units()
                return [check.verdict() for check in checks]
            except torch.OutOfMemoryError as error:
                self._job.take_fewer(error)
                self._exact = False
            torch.cuda.empty_cache()

    def _layers(self) -> list[LayerCheck]:
        return [layer for group in self._groups for layer in group.layers]

    def _check_units(self) -> None:
        units = self._job.units
        size = self._job.options.batch_size
        needed = set().union(*(layer.units(size) for layer in self._layers()))
        if self._outcomes and (self._hits is None or not needed):
            needed = set(range(units.total or 0))
        order = sorted(needed)
        with _inputs_kept(self._layers()):
            batches = self._job.source.batches([units[u] for u in order])
            for number, (inputs, labels) in zip(order, batches, strict=True):
                self._check_unit(units[number], inputs, labels)

    def _check_unit(self, unit: range, inputs: Any, labels: Tensor | None) -> None:
        job = self._job
        kept = np.asarray(job.source.kept(unit), np.int64)
        wanted = set().union(*(layer.samples_in(unit) for layer in self._layers()))
        for sample in sorted(wanted - set(kept.tolist())):
            raise DataError(f"a hit is of it, but {job.source.skipped[sample]}")
        for rows in job.pieces(len(kept)):
            piece = job.transfer(rows_of(inputs, rows))
            own = None if labels is None else labels[rows]
            samples = torch.from_numpy(kept[rows]).to(job.device)
            for group in reversed(self._groups):  # conditions first, as in the run
                changed = piece
                if group.condition is not None:
                    changed = job.changed(group.condition, piece, samples, own)
                scores = self._outcomes is not None and group.condition is None
                batch = CheckedBatch(kept[rows], PatchSource(picture(changed), job.display))
                found = job.forward(changed, group.layers, batch, scores=scores)
                if self._outcomes is not None and found is not None:
                    self._outcomes.compare(kept[rows], found, own)
            if not self._groups and self._outcomes is not None:
                self._outcomes.compare(kept[rows], job.scores(piece), own)


@contextlib.contextmanager
def _inputs_kept(layers: list[LayerCheck]) -> Iterator[None]:
    handles = [handle for layer in layers if (handle := layer.watch()) is not None]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
