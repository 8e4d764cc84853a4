"""The stored hits of one layer in the forward that gives them again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from fastconv.capture import CaptureTarget
from fastconv.run.fused import run_fused, run_in_place
from fastconv.run.job import Job
from fastconv.run.plan import PlannedLayer
from fastconv.store.read_layer import Layer
from fastconv.verification.float64 import is_plain
from fastconv.verification.hit_set_check import CheckedBatch, HitSetCheck


class LayerCheck:
    """Compares the chosen hits of one layer; a sink of `Job.forward`.

    Attributes:
        sets: the checks of each set of its hits.

    Args:
        layer: as stored; the same layer under a condition where the inputs are changed.
        hits: how many to check of each set, evenly chosen; None for all.
        under: name of that condition.
    """

    def __init__(
        self,
        job: Job,
        planned: PlannedLayer,
        layer: Layer,
        hits: int | None,
        under: str | None = None,
    ):
        self.info, self._target = planned.info, planned.target
        self._run = run_in_place if planned.in_place else run_fused
        self._job = job
        self._module: nn.Module | None = None  # of the convolution, where torch's own can be told
        if is_plain(planned.target):
            self._module = planned.target.conv
        self._input: Tensor | None = None  # of the last call of that
        self.sets = [
            HitSetCheck(job, planned, layer, name, hits, under) for name in job.options.hit_sets
        ]

    def units(self, batch_size: int) -> set[int]:
        """Numbers of the units that the chosen hits are of."""
        return set().union(*(found.units(batch_size) for found in self.sets))

    def samples_in(self, unit: range) -> set[int]:
        """The samples of a unit that chosen hits are of."""
        return set().union(*(found.samples_in(unit) for found in self.sets))

    def watch(self) -> Any:
        """Keep the input of the convolution from now on; returns the handle of the hook."""
        if self._module is None:
            return None

        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._input = args[0]

        return self._module.register_forward_pre_hook(keep)

    def output(self, value: Tensor, batch: CheckedBatch) -> None:
        self._compare(value, self._target, batch)

    def input(self, x: Tensor, batch: CheckedBatch) -> Tensor:
        backend, fusion = self._job.options.backend, self._target.fusion
        run = partial(self._run, self._target, x, return_activation=True, backend=backend)
        value = run().activation
        assert value is not None and fusion is not None
        measured = replace(self._target, scale=None, shift=None, activation=None)
        self._compare(value, measured, batch)
        if fusion.post_ops is not None:
            value = run(post_ops=fusion.post_ops).activation
            assert value is not None
        return value

    def absent(self, batch: CheckedBatch) -> None:
        """Nothing to compare: the model passes over the layer."""

    def _compare(self, value: Tensor, left: CaptureTarget, batch: CheckedBatch) -> None:
        """Compare the hits of a batch; `left`: what is left to apply to the value."""
        for found in self.sets:
            found.compare(value, left, batch, self._module, self._input)
