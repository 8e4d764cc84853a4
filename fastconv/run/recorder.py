"""All layers of a run, measured together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fastconv.format.result import LayerResult, Rows
from fastconv.measure.patches import PatchSource
from fastconv.run.batch import MeasuredBatch
from fastconv.run.cuda_graph import Replay
from fastconv.run.job import Job
from fastconv.run.layer_sink import LayerSink
from fastconv.run.maps import KeptMaps
from fastconv.run.plan import replays
from fastconv.store.parts import Part, PartWriter


class Recorder:
    """Running states of all layers, and what they add to a part.

    Batches whose candidate lists may have been too short wait in `_unsettled`, until a device has
    told: `settle` runs their forward again, for the hits of these layers alone.
    """

    def __init__(self, job: Job, part: Callable[[], PartWriter]):
        self._job, self._part = job, part
        self.maps = KeptMaps(job.options, len(job.source), job.affines, part)
        self.sinks = [
            LayerSink(index, planned, job.options, job.input_size, self.maps)
            for index, planned in enumerate(job.layers)
        ]
        self._batches: list[MeasuredBatch] = []  # of the unit at hand
        self._unsettled: list[MeasuredBatch] = []
        self._work: Callable[[MeasuredBatch], None] = self._forward
        if replays(job.options, job.device):
            self._work = Replay(self._forward, self._tensors, job.options.batch_size)

    @property
    def nbytes(self) -> int:
        """Bytes of the largest parts of the states."""
        return sum(sink.state.nbytes for sink in self.sinks)

    def take(self, samples: list[int], inputs: Tensor) -> None:
        """Measure some samples of a unit; row n of `inputs` is samples[n]."""
        source = PatchSource(inputs, self._job.display)
        mapped = self.maps.rows(np.asarray(samples, np.int64))
        batch = MeasuredBatch(samples, inputs, source, mapped)
        self._work(batch)
        batch.ask()
        self._batches.append(batch)

    def end_unit(self, unit: range, kept: list[int]) -> None:
        """The unit is complete: settle the one before, which a device has computed by now."""
        self.settle()
        self._unsettled = [batch for batch in self._batches if batch.overflowed]
        if self._job.options.samples:
            self._write_samples(unit, kept)
        self._batches = []

    def settle(self) -> None:
        """Run forwards again whose lists were too short."""
        for batch in self._unsettled:
            if batch.needs_second_forward():
                self._forward(batch)
        self._unsettled = []

    def resume(self, part: Part) -> None:
        """Take over the hits of a finished part."""
        for sink in self.sinks:
            sink.state.merge_hits(part.layer(sink.index, sink.info))

    def save(self, writer: PartWriter, samples: range) -> None:
        """Add the states to a part of these samples, and start counting anew."""
        for sink in self.sinks:
            writer.add_layer(sink.index, sink.state.part(samples))

    def forget_totals(self) -> None:
        for sink in self.sinks:
            sink.state.totals = sink.state.new_totals()

    def results(self, parts: Sequence[Part], own: range, kept: np.ndarray) -> Iterator[LayerResult]:
        """The finished layers, one at a time: the parts, and what was measured since the last.

        Args:
            own: the samples of this run.
            kept: those of them that could be read.
        """
        options = self._job.options
        for sink, planned in zip(self.sinks, self._job.layers, strict=True):
            state, weight = sink.state, planned.target.weight
            if state.totals is not None:
                for part in parts:
                    stored = part.layer(sink.index, sink.info, hits=False)
                    state.totals.merge(stored.stats, stored.histogram)
            result = state.result(None if weight is None else weight.float().cpu().numpy())
            if options.samples:
                shape = (len(own), sink.info.channels)
                place = f"samples/{sink.index}"
                result.samples_max = Rows(shape, _blocks(parts, f"{place}/max"))
                result.samples_mean = Rows(shape, _blocks(parts, f"{place}/mean"))
            if options.maps is not None:
                result.maps = self.maps.of_layer(parts, sink.index, sink.info, kept)
            yield result

    def _forward(self, batch: MeasuredBatch) -> None:
        self._job.forward(batch.inputs, self.sinks, batch)

    def _tensors(self) -> list[Tensor]:
        """All that batches change, in place."""
        return [tensor for sink in self.sinks for tensor in sink.state.tensors()]

    def _write_samples(self, unit: range, kept: list[int]) -> None:
        """The rows of one unit; from a device, those of all layers in one transfer."""
        channels = np.repeat([sink.info.channels for sink in self.sinks], 2)
        table = np.empty((0, channels.sum()), np.float32)
        if self._batches:
            tables = [_side_by_side(batch, self.sinks) for batch in self._batches]
            table = torch.cat(tables).cpu().numpy()
        columns = np.split(scatter_rows(table, unit, kept, np.nan), np.cumsum(channels)[:-1], 1)
        for i, rows in enumerate(columns):
            name = f"samples/{self.sinks[i // 2].index}/{('max', 'mean')[i % 2]}"
            self._part().append(name, rows)


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
