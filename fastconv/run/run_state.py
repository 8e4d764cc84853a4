"""The states of all layers during a run, and the parts they are saved in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastconv import dispatch
from fastconv.backends import Kernel
from fastconv.capture import CaptureTarget
from fastconv.errors import FastconvError, FileFormatError
from fastconv.format.result import LayerInfo, LayerResult, Rows, SampleTable
from fastconv.measure.layer_state import LayerState, Measures
from fastconv.measure.listing import Peaks, reduce_and_list, whole_peaks
from fastconv.measure.patches import Display, PatchSource
from fastconv.ops.channel_normalize import channel_normalize
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.reduction import Reduction
from fastconv.run.batch import Batch, Spread
from fastconv.run.maps import Affine, KeptMaps
from fastconv.run.options import Options
from fastconv.run.plan import run_fused
from fastconv.store.parts import Part, PartsFolder, PartWriter

EXTREMA, LISTS, WHOLE = "extrema", "lists", "whole"  # where candidates come from

BYTES_PER_SECOND = 2e8  # a guess at what saving costs, until a part has been saved
MIN_SECONDS = 1.0  # between two parts, and at least
COST_FACTOR = 20  # times what writing the last one took: saving costs at most 5 %
ELAPSED_SHARE = 0.02  # of the run: so that a long run has hundreds of parts, not thousands


class RunState:
    """Running states of all layers; left by an error, it saves what is done."""

    def __init__(
        self,
        infos: Sequence[LayerInfo],
        options: Options,
        input_size: tuple[int, ...],
        length: int,
        display: Display | None,
        affines: Sequence[Affine] | None = None,
    ):
        self.display = display
        self._options = options
        self._length = length
        measures = Measures(
            stats=options.stats,
            quantiles=options.quantiles,
            topk=options.topk,
            hits_per_sample=options.hits_per_sample,
            largest=options.order == "largest",
            patches=options.patches,
        )
        self._measures = measures
        self._layers = [LayerState(info, measures, input_size) for info in infos]
        self._kept_maps = KeptMaps(options, length, affines)
        self._streams = options.samples or options.maps is not None
        self._parts: list[Part] = []
        self._folder: PartsFolder | None = None
        self._writer: PartWriter | None = None
        self._units: range = range(0)  # measured since the last part
        self._labels: list[np.ndarray] = []  # of those units
        self._skipped: list[int] = []  # of those units
        self._unsettled: list[Batch] = []  # whose lists may have been too short
        self._packed: dict[nn.Module, Tensor] = {}  # weights as kernels read them
        self._torn = False  # a unit is half taken, or a part half written
        self._started = self._saved = time.monotonic()
        self._cost = sum(layer.nbytes for layer in self._layers) / BYTES_PER_SECOND

    # -- doing the work ----------------------------------------------------------------------

    def resume(self, folder: PartsFolder, own: range) -> list[int]:
        """Take over the finished parts of a folder; returns the units left to do."""
        self._folder = folder
        self._parts = folder.parts()
        done: set[int] = set()
        for part in self._parts:
            units = range(part.first, part.last + 1)
            if not set(units) <= set(own) - done:
                raise FileFormatError(f"{part.path} does not fit the run; delete it and run again")
            done.update(units)
            for index, layer in enumerate(self._layers):
                layer.merge_hits(part.layer(index, layer.info))
        return [u for u in own if u not in done]

    def maps_size(self, todo: Sequence[int]) -> tuple[str, float]:
        """The maps of this run in words, and the bytes that the disk needs until it is done.

        While the finished file is written, its maps are in the parts as well.
        """
        infos = [layer.info for layer in self._layers]
        words, whole = self._kept_maps.size(infos, np.asarray(self._own_samples()))
        size = self._options.batch_size
        left = np.asarray([i for u in todo for i in range(u * size, (u + 1) * size)], np.int64)
        return words, whole + self._kept_maps.size(infos, left)[1]

    @contextlib.contextmanager
    def unit(
        self, number: int, unit: range, kept: list[int], labels: Tensor | None
    ) -> Iterator[Callable[[list[int], Tensor, Callable[[Batch], None]], None]]:
        """Take one unit, of which the samples `kept` could be read.

        What is yielded takes samples, their inputs, and what gives every layer of them to a batch:
        all of `kept`, or pieces of it one after the other.
        """
        if self._units and number != self._units.stop:
            self._save()
        if not self._units:
            self._units = range(number, number)
        self._torn = True
        self._spread = Spread(unit, kept)
        self._rows: list[dict[int, tuple[Tensor, Tensor]]] = []  # of each batch, by layer

        before, self._unsettled = self._unsettled, []

        def take(samples: list[int], inputs: Tensor, forward: Callable[[Batch], None]) -> None:
            self._rows.append({})
            source = PatchSource(inputs, self.display)
            mapped = self._kept_maps.rows(np.asarray(samples, np.int64))
            batch = Batch(samples, source, mapped, inputs.device, forward)
            batch.run()
            if batch.short:
                self._unsettled.append(batch)

        yield take
        for batch in before:  # a device computes this unit meanwhile
            batch.settle()
        if self._options.samples:
            self._write_samples()
        if labels is not None:
            self._labels.append(self._spread(labels.numpy(), -1))
        self._skipped += sorted(set(unit) - set(kept))
        self._units = range(self._units.start, number + 1)
        self._torn = False
        if self._due():
            self._save()

    def tensors(self) -> list[Tensor]:
        """All that batches change, in place."""
        return [tensor for layer in self._layers for tensor in layer.tensors()]

    def take(self, index: int, value: Tensor, target: CaptureTarget, batch: Batch) -> None:
        """Measure the output of a layer."""
        _check_shape(self._layers[index].info, value, len(batch.rows))
        backend = self._options.backend
        transform: dict[str, Any] = {
            "scale": target.scale,
            "shift": target.shift,
            "activation": target.activation,
            "backend": backend,
        }
        kernel = dispatch.kernel("channel_reduce", backend, value.device, value)
        self._measure(
            index,
            batch,
            partial(channel_reduce, value, **transform),
            lambda r: self._whole_peaks(value, target.info, **transform),
            self._peaks_from(index, batch, kernel),
        )
        if batch.again is None and len(batch.mapped):
            self._write_maps(index, stage_value(value[batch.mapped], target), batch)

    def convolve(
        self, index: int, inputs: Tensor, target: CaptureTarget, batch: Batch
    ) -> Tensor | None:
        """Compute a convolution and measure it, both at once; returns what the network reads."""
        assert target.fusion is not None and target.weight is not None
        backend = self._options.backend
        kernel = dispatch.kernel("conv_reduce", backend, inputs.device, inputs, target.weight)
        peaks = self._peaks_from(index, batch, kernel)
        reduce = partial(
            run_fused,
            target,
            inputs,
            return_activation=target.fusion.read or peaks == WHOLE or len(batch.mapped) > 0,
            onward=target.fusion.onward,
            packed=self._packed,
            backend=backend,
        )
        value = self._measure(
            index, batch, reduce, lambda r: self._whole_peaks(r.activation, target.info), peaks
        ).activation
        if value is not None:
            _check_shape(self._layers[index].info, value, len(batch.rows))
            if batch.again is None and len(batch.mapped):
                self._write_maps(index, value[batch.mapped], batch)
        return value if target.fusion.read else None

    def _peaks_from(self, index: int, batch: Batch, kernel: Kernel) -> str:
        """Where the candidates of a batch come from: extrema, lists of the kernel, or all values.

        The first samples fill the hits: before that every value could be among them.
        """
        layer = self._layers[index]
        if not self._options.many_hits or not layer.info.size:
            return EXTREMA
        if batch.again is not None:
            return WHOLE if index in batch.again else EXTREMA
        return LISTS if kernel.lists and layer.hits.seen >= self._measures.topk else WHOLE

    def _measure(
        self,
        index: int,
        batch: Batch,
        reduce: Callable[..., Reduction],
        whole: Callable[[Reduction], Peaks],
        peaks_from: str,
    ) -> Reduction:
        """Reduce a batch and take what comes of it; in a second forward, the hits alone."""
        layer, peaks = self._layers[index], None
        if batch.again is not None:
            reduction = reduce()
            if peaks_from == WHOLE:
                layer.take_hits(whole(reduction), batch.rows, batch.source)
            return reduction
        reduce = partial(reduce, histogram=layer.histogram(batch.rows.device))
        if peaks_from == LISTS:
            reduction, peaks, batch.short[index] = reduce_and_list(
                reduce, layer.hits, batch.rows, self._measures.hits_per_sample
            )
        else:
            reduction = reduce()
            peaks = whole(reduction) if peaks_from == WHOLE else None
        self._add(index, reduction, peaks, batch)
        return reduction

    def _add(self, index: int, r: Reduction, peaks: Peaks | None, batch: Batch) -> None:
        self._layers[index].update(r, peaks, batch.rows, batch.source)
        if self._options.samples:
            self._rows[-1][index] = sample_rows(r)

    def _write_maps(self, index: int, values: Tensor, batch: Batch) -> None:
        self._kept_maps.write(self._open_part(), index, batch.first, values)

    def _whole_peaks(self, value: Tensor | None, info: LayerInfo, **transform: Any) -> Peaks:
        m = self._measures
        assert value is not None
        return whole_peaks(value, info, m.hits_per_sample, largest=m.largest, **transform)

    # -- saving ------------------------------------------------------------------------------

    def __enter__(self) -> RunState:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._settle()
                if self._streams:
                    self._save()
            elif self._units and not self._torn:
                with contextlib.suppress(FastconvError, torch.OutOfMemoryError):
                    self._save()
        finally:
            if self._writer is not None:
                self._writer.discard()
                self._writer = None

    def _settle(self) -> None:
        for batch in self._unsettled:
            batch.settle()
        self._unsettled = []

    def _due(self) -> bool:
        now = time.monotonic()
        wait = max(MIN_SECONDS, COST_FACTOR * self._cost, ELAPSED_SHARE * (now - self._started))
        return now - self._saved >= wait

    def _open_part(self) -> PartWriter:
        assert self._folder is not None
        if self._writer is None:
            self._writer = PartWriter(self._folder, self._units.start)
        return self._writer

    def _save(self) -> None:
        """Write a part of the units since the last one, and start counting anew."""
        if not self._units:
            return
        began = time.monotonic()
        self._torn = True  # until the part is whole
        self._settle()
        writer = self._open_part()
        first, last = self._units.start, self._units.stop - 1
        samples = range(first * self._options.batch_size, (last + 1) * self._options.batch_size)
        if self._labels:
            writer.append("labels", np.concatenate(self._labels))
        if self._skipped:
            writer.append("skipped", np.asarray(self._skipped, np.int64))
        for index, layer in enumerate(self._layers):
            writer.add_layer(index, layer.part(samples))
        self._parts.append(writer.finish(last))
        self._parts.sort(key=lambda p: p.first)
        self._writer = None
        for layer in self._layers:
            layer.totals = layer.new_totals()
        self._units, self._labels, self._skipped, self._torn = range(0), [], [], False
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def _write_samples(self) -> None:
        """The rows of one unit; from a device, those of all layers in one transfer."""
        channels = np.repeat([layer.info.channels for layer in self._layers], 2)
        table = np.empty((0, channels.sum()), np.float32)
        if self._rows:
            tables = [_side_by_side([rows[i] for i in range(len(rows))]) for rows in self._rows]
            table = torch.cat(tables).cpu().numpy()
        parts = np.split(self._spread(table, np.nan), np.cumsum(channels)[:-1], 1)
        for i, rows in enumerate(parts):
            self._open_part().append(f"samples/{i // 2}/{('max', 'mean')[i % 2]}", rows)

    # -- the result --------------------------------------------------------------------------

    def results(self, weights: Sequence[Tensor | None]) -> Iterator[LayerResult]:
        """The finished layers, one at a time: the parts, and what was measured since the last."""
        for index, (layer, weight) in enumerate(zip(self._layers, weights, strict=True)):
            if layer.totals is not None:
                for part in self._parts:
                    stored = part.layer(index, layer.info, hits=False)
                    layer.totals.merge(stored.stats, stored.histogram)
            result = layer.result(None if weight is None else weight.detach().float().cpu().numpy())
            if self._options.samples:
                for name in ("max", "mean"):
                    setattr(result, f"samples_{name}", self._sample_rows(index, layer.info, name))
            if self._options.maps is not None:
                samples = np.setdiff1d(np.asarray(self._own_samples()), self.skipped())
                result.maps = self._kept_maps.of_layer(self._parts, index, layer.info, samples)
            yield result

    def sample_table(self, keys: Sequence[str] | None) -> SampleTable:
        """Keys and labels of the samples of this shard."""
        stored = [(part.first, part.rows("labels")) for part in self._parts]
        if self._labels:
            stored.append((self._units.start, np.concatenate(self._labels)))
        stored.sort(key=lambda entry: entry[0])
        rows = [labels for _, labels in stored if labels is not None]
        own = self._own_samples()
        keys = None if keys is None else keys[own.start : own.stop]
        return SampleTable(len(own), keys, np.concatenate(rows) if rows else None, self.skipped())

    def skipped(self) -> list[int]:
        """The samples so far that could not be read."""
        rows = [r for part in self._parts if (r := part.rows("skipped")) is not None]
        return sorted([int(i) for r in rows for i in r] + self._skipped)

    def _own_samples(self) -> range:
        units = self._options.own_units(self._length)
        size = self._options.batch_size
        return range(units.start * size, min(units.stop * size, self._length))

    def _sample_rows(self, index: int, info: LayerInfo, name: str) -> Rows:
        def blocks() -> Iterator[np.ndarray]:
            for part in self._parts:
                rows = part.rows(f"samples/{index}/{name}")
                if rows is not None:
                    yield rows

        return Rows((len(self._own_samples()), info.channels), blocks())


def _side_by_side(columns: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    place = columns[0][0].device
    return torch.cat([column.to(place) for pair in columns for column in pair], 1)


def sample_rows(r: Reduction) -> tuple[Tensor, Tensor]:
    """Maximum and mean of every (sample, channel), float32; NaN without a finite value."""
    finite = r.count - r.nonfinite
    highest = torch.where(finite > 0, r.max, torch.nan)
    return highest, torch.where(finite > 0, r.sum / finite, torch.nan).float()


def _check_shape(info: LayerInfo, value: Tensor, rows: int) -> None:
    if value.shape != (rows, info.channels, *info.size):
        raise FastconvError(
            f"{info.name} gave {list(value.shape)} for {rows} samples, but "
            f"{[info.channels, *info.size]} for the first one: every sample must give one row "
            "of the same shape"
        )


def stage_value(value: Tensor, target: CaptureTarget) -> Tensor:
    """The value that is measured of a hooked output, float32 [N, C, *spatial]."""
    value = value.float()
    if target.scale is not None:
        value = channel_normalize(value, "batchnorm", scale=target.scale, shift=target.shift)
    return value if target.activation is None else getattr(F, target.activation)(value)
