"""All layers of a run, measured together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastconv.capture.batch import picture
from fastconv.format.result import LayerResult, Rows
from fastconv.measure.patches import PatchSource
from fastconv.run.batch import MeasuredBatch
from fastconv.run.condition import Condition
from fastconv.run.cuda_graph import Replay
from fastconv.run.job import Job
from fastconv.run.layer_sink import LayerSink
from fastconv.run.maps import KeptMaps
from fastconv.run.outcomes import outcomes_of
from fastconv.run.plan import replays
from fastconv.store.parts import Part, PartWriter


@dataclass
class Group:
    """The sinks of all layers for the samples as they are, or under one condition."""

    condition: Condition | None
    sinks: list[LayerSink]
    batches: list[MeasuredBatch] = field(default_factory=list)  # of the unit at hand
    unsettled: list[MeasuredBatch] = field(default_factory=list)


class Recorder:
    """Running states of all layers, and what they add to a part.

    Batches whose candidate lists may have been too short wait in `unsettled`, until a device has
    told: `settle` runs their forward again, for the hits of these layers alone.
    """

    def __init__(self, job: Job, part: Callable[[], PartWriter]):
        self._job, self._part = job, part
        self.maps = KeptMaps(job.options, job.affines, part)
        self._packed: dict[nn.Module, Tensor] = {}
        self._plain = self._group(0, None)
        self._conditions = [self._group(i, c) for i, c in enumerate(job.conditions, 1)]
        self._groups = [self._plain, *self._conditions]
        self._forward: Callable[[MeasuredBatch], None] = partial(self._run, self._plain)
        if replays(job.options, job.device):
            size = job.options.batch_size
            self._forward = Replay(partial(self._run, self._plain), self._tensors, size)

    def _group(self, number: int, condition: Condition | None) -> Group:
        """Sinks that parts and batches know by numbers of their own."""
        job, layers = self._job, self._job.layers
        first = number * len(layers)
        return Group(
            condition,
            [
                LayerSink(i, planned, job.options, job.input_size, self.maps, self._packed)
                for i, planned in enumerate(layers, first)
            ],
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the largest parts of the states."""
        return sum(sink.state.nbytes for sink in self._sinks())

    def shown_samples(self, samples: np.ndarray) -> set[int]:
        """The samples that a hit of the unchanged data is of, and those of `samples` with maps."""
        mapped = samples[self.maps.rows(samples)]
        shown = np.unique(self._hits().cpu().numpy())  # torch's would wait for its threads
        return {*shown.tolist(), *mapped.tolist()} - {-1}

    def to_be_shown(self, samples: list[int]) -> list[int]:
        """Those samples of the last unit that have a hit of the unchanged data, or may, or maps."""
        short = (flag for batch in self._plain.unsettled for flag in batch.overflowed.values())
        if any(short):
            return samples
        hits = self._hits()
        rows = torch.isin(torch.tensor(samples, device=hits.device), hits)
        shown = np.asarray(rows.tolist(), bool)
        shown[self.maps.rows(np.asarray(samples, np.int64))] = True
        return [sample for sample, keep in zip(samples, shown.tolist(), strict=True) if keep]

    def _hits(self) -> Tensor:
        """The samples of all hits of the unchanged data, -1 where a place is empty."""
        found = [
            hits.samples.flatten()
            for sink in self._plain.sinks
            for hits in sink.state.hits.values()
        ]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)

    def take(self, samples: list[int], inputs: Any, labels: Tensor | None) -> None:
        """Measure some samples of a unit; row n of `inputs` and `labels` is samples[n]."""
        for group in self._conditions:  # first: a model may write to its input
            assert group.condition is not None
            batch = self._batch(samples, inputs, np.empty(0, np.int64))
            changed = self._job.changed(group.condition, inputs, batch.rows, labels)
            self._measure(group, batch.elsewhere(changed, batch.rows))
        mapped = self.maps.rows(np.asarray(samples, np.int64))
        self._measure(self._plain, self._batch(samples, inputs, mapped))

    def _batch(self, samples: list[int], inputs: Any, mapped: np.ndarray) -> MeasuredBatch:
        source = PatchSource(picture(inputs), self._job.display)
        return MeasuredBatch(samples, inputs, source, mapped)

    def _measure(self, group: Group, batch: MeasuredBatch) -> None:
        if group.condition is None:
            self._forward(batch)
        else:
            self._run(group, batch)
        batch.ask()
        if not batch.overflowed:
            batch.forget_inputs()
        group.batches.append(batch)

    def end_unit(
        self, unit: range, kept: list[int], labels: Tensor | None
    ) -> dict[str, np.ndarray]:
        """The unit is complete: settle the one before, which a device has computed by now.

        Returns:
            The outcomes of its samples, [n] or [n, K] each, where they are kept.
        """
        self.settle()
        for group in self._groups:
            group.unsettled = [batch for batch in group.batches if batch.overflowed]
        if self._job.options.samples:
            self._write_samples(unit, kept)
        scores = [batch.scores for batch in self._plain.batches if batch.scores is not None]
        for group in self._groups:
            group.batches = []
        if not self._job.options.outcomes:
            return {}
        count = 2 if labels is None or labels.ndim == 1 else labels.shape[1]
        found = outcomes_of(torch.cat(scores) if scores else torch.zeros(0, count), labels)
        return {name: values.numpy() for name, values in found.items()}

    def settle(self) -> None:
        """Run forwards again whose lists were too short."""
        for group in self._groups:
            for batch in group.unsettled:
                if batch.needs_second_forward():
                    self._run(group, batch)
            group.unsettled = []

    def resume(self, part: Part) -> None:
        """Take over the hits of a finished part."""
        with part.open():
            for sink in self._sinks():
                sink.state.merge_hits(part.layer(sink.index, sink.info, totals=False))

    def save(self, writer: PartWriter, samples: range) -> None:
        """Add the states to a part of these samples, and start counting anew."""
        for sink in self._sinks():
            writer.add_layer(sink.index, sink.state.part(samples))

    def forget_totals(self) -> None:
        for sink in self._sinks():
            sink.state.totals = sink.state.new_totals()

    def results(self, parts: Sequence[Part], own: range, kept: np.ndarray) -> Iterator[LayerResult]:
        """The finished layers, one at a time: the parts, and what was measured since the last.

        Args:
            own: the samples of this run.
            kept: those of them that could be read.
        """
        for part in parts:
            self._add_totals(part)
        for layer, planned in enumerate(self._job.layers):
            weight = planned.target.weight
            sink = self._plain.sinks[layer]
            result = self._result(sink, parts, own)
            result.weight = None if weight is None else weight.float().cpu().numpy()
            if self._job.options.maps is not None:
                result.maps = self.maps.of_layer(parts, sink.index, sink.info, kept)
            for group in self._conditions:
                assert group.condition is not None
                changed = self._result(group.sinks[layer], parts, own)
                result.conditions[group.condition.name] = changed
            yield result

    def _result(self, sink: LayerSink, parts: Sequence[Part], own: range) -> LayerResult:
        result = sink.state.result(None)
        if self._job.options.samples:
            shape = (len(own), sink.info.channels)
            place = f"samples/{sink.index}"
            result.samples_max = Rows(shape, _blocks(parts, f"{place}/max"))
            result.samples_mean = Rows(shape, _blocks(parts, f"{place}/mean"))
        return result

    def _add_totals(self, part: Part) -> None:
        with part.open() as file:
            if "layers" not in file:  # it was begun: they are here
                return
            for sink in self._sinks():
                if sink.state.totals is not None:
                    stored = part.layer(sink.index, sink.info, hits=False)
                    sink.state.totals.merge(stored.stats, stored.histogram)

    def _sinks(self) -> Iterator[LayerSink]:
        return chain.from_iterable(group.sinks for group in self._groups)

    def _run(self, group: Group, batch: MeasuredBatch) -> None:
        wanted = self._job.options.outcomes and group.condition is None and batch.redo is None
        scores = self._job.forward(batch.inputs, group.sinks, batch, scores=wanted)
        if wanted:
            batch.scores = scores

    def _tensors(self) -> list[Tensor]:
        """All that batches change, in place."""
        return [tensor for sink in self._sinks() for tensor in sink.state.tensors()]

    def _write_samples(self, unit: range, kept: list[int]) -> None:
        """The rows of one unit; from a device, those of all layers in one transfer."""
        for group in self._groups:
            channels = np.repeat([sink.info.channels for sink in group.sinks], 2)
            table = np.empty((0, channels.sum()), np.float32)
            if group.batches:
                tables = [_side_by_side(batch, group.sinks) for batch in group.batches]
                table = torch.cat(tables).cpu().numpy()
            rows = scatter_rows(table, unit, kept, np.nan)
            for i, columns in enumerate(np.split(rows, np.cumsum(channels)[:-1], 1)):
                name = f"samples/{group.sinks[i // 2].index}/{('max', 'mean')[i % 2]}"
                self._part().append(name, columns)


def scatter_rows(rows: np.ndarray, unit: range, kept: list[int], missing: float) -> np.ndarray:
    """The rows of the samples `kept` where they belong in their unit; `missing` elsewhere."""
    if len(kept) == len(unit):
        return rows
    full = np.full((len(unit), *rows.shape[1:]), missing, rows.dtype)
    full[np.asarray(kept, np.int64) - unit.start] = rows
    return full


def _side_by_side(batch: MeasuredBatch, sinks: Sequence[LayerSink]) -> Tensor:
    pairs = [batch.sample_rows[sink.index] for sink in sinks]
    device = pairs[0][0].device
    return torch.cat([column.to(device) for pair in pairs for column in pair], 1)


def _blocks(parts: Sequence[Part], name: str) -> Iterator[np.ndarray]:
    for part in parts:
        rows = part.rows(name)
        if rows is not None:
            yield rows
