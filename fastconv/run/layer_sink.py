"""One layer during a run: takes what the forward hands over of it, and measures that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastconv import dispatch
from fastconv.backends import Kernel
from fastconv.capture import CaptureTarget
from fastconv.errors import FastconvError
from fastconv.format.result import LayerInfo
from fastconv.geometry import ConvGeometry
from fastconv.measure.candidates import reduce_and_list, whole_peaks
from fastconv.measure.layer_state import LayerState, Measures
from fastconv.measure.peaks import Peaks
from fastconv.ops.channel_normalize import channel_normalize
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.conv_reduce import Convolution, kernel_of_module
from fastconv.reduction import Reduction
from fastconv.run.batch import MeasuredBatch
from fastconv.run.fused import run_fused, run_in_place
from fastconv.run.maps import KeptMaps
from fastconv.run.options import Options
from fastconv.run.plan import PlannedLayer

EXTREMA, LISTS, WHOLE = "extrema", "lists", "whole"  # where candidates for the hits come from


class LayerSink:
    """Measures one layer, batch after batch, into its running state.

    A layer that runs by itself hands its `output` over; one that runs fused its `input`, and takes
    back what the network reads. `index` numbers the layer in parts and batches.
    """

    def __init__(
        self,
        index: int,
        planned: PlannedLayer,
        options: Options,
        input_size: tuple[int, ...],
        maps: KeptMaps,
        packed: dict[nn.Module, Tensor],
    ):
        self.index, self.info = index, planned.info
        self._target, self._options, self._maps = planned.target, options, maps
        self._in_place = planned.in_place
        self._measures = measures(options)
        self.state = LayerState(planned.info, self._measures, input_size)
        self._packed = packed  # weights as the kernel reads them

    def output(self, value: Tensor, batch: MeasuredBatch) -> None:
        """Measure the output [n, C, *spatial] of the layer."""
        check_shape(self.info, value.shape, len(batch.rows))
        target, backend = self._target, self._options.backend
        transform: dict[str, Any] = {
            "scale": target.scale,
            "shift": target.shift,
            "activation": target.activation,
            "backend": backend,
        }
        kernel = dispatch.kernel("channel_reduce", backend, value.device, value)
        self._measure(
            batch,
            partial(channel_reduce, value, **transform),
            lambda _, names: self._whole_peaks(value, names, **transform),
            self._peaks_from(batch, kernel),
        )
        if batch.redo is None and len(batch.mapped):
            kept = stage_value(value[batch.mapped], target)
            self._maps.write(self.index, batch.first, kept)

    def input(self, x: Tensor, batch: MeasuredBatch) -> Tensor | None:
        """Run the convolution on its input and measure it; returns what the network reads."""
        target, backend = self._target, self._options.backend
        assert target.fusion is not None and target.weight is not None
        check_shape(self.info, _output_shape(self.info, x), len(batch.rows))
        if self._in_place:
            kernel = dispatch.kernel("channel_reduce", backend, x.device, x)
        else:
            kernel = kernel_of_module(x, cast(Convolution, target.module), backend)
        peaks = self._peaks_from(batch, kernel)
        reduce = partial(
            run_in_place if self._in_place else run_fused,
            target,
            x,
            return_activation=target.fusion.read or peaks == WHOLE or len(batch.mapped) > 0,
            post_ops=target.fusion.post_ops,
            packed=self._packed,
            backend=backend,
        )
        value = self._measure(
            batch, reduce, lambda r, names: self._whole_peaks(r.activation, names), peaks
        ).activation
        if value is not None and batch.redo is None and len(batch.mapped):
            self._maps.write(self.index, batch.first, value[batch.mapped])
        return value if target.fusion.read else None

    def absent(self, batch: MeasuredBatch) -> None:
        """Leave the batch out: NaN where rows or maps of every sample are kept."""
        if batch.redo is not None:
            return
        if self._options.samples:
            nothing = torch.full((len(batch.rows), self.info.channels), torch.nan)
            batch.sample_rows[self.index] = nothing, nothing
        if len(batch.mapped):
            shape = (len(batch.mapped), self.info.channels, *self.info.size)
            self._maps.write(self.index, batch.first, torch.full(shape, torch.nan))

    def _peaks_from(self, batch: MeasuredBatch, kernel: Kernel) -> str:
        """Where the candidates of a batch come from: extrema, lists of the kernel, or all values.

        The first samples fill the hits: before that every value could be among them.
        """
        if not self._options.many_hits or not self.info.size:
            return EXTREMA
        if batch.redo is not None:
            return WHOLE if batch.redo.get(self.index) else EXTREMA
        filled = all(hits.seen >= hits.k for hits in self.state.hits.values())
        return LISTS if filled and "candidates" in kernel.takes else WHOLE

    def _measure(
        self,
        batch: MeasuredBatch,
        reduce: Callable[..., Reduction],
        whole: Callable[[Reduction, Iterable[str]], dict[str, Peaks]],
        peaks_from: str,
    ) -> Reduction:
        """Reduce a batch and take what comes of it; in a second forward, the hits alone."""
        state = self.state
        if batch.redo is not None:
            reduction = reduce()
            if peaks_from == WHOLE:
                peaks = whole(reduction, batch.redo[self.index])
                state.take_hits(peaks, batch.rows, batch.source)
            return reduction
        counted = partial(reduce, histogram=state.histogram(batch.rows.device))
        if peaks_from == LISTS:
            reduction, peaks = self._listed(batch, counted, reduce)
        else:
            reduction = counted()
            peaks = whole(reduction, state.hits) if peaks_from == WHOLE else {}
        state.update(reduction, peaks, batch.rows, batch.source)
        if self._options.samples:
            batch.sample_rows[self.index] = sample_rows(reduction)
        return reduction

    def _listed(
        self, batch: MeasuredBatch, first: Callable[..., Reduction], again: Callable[..., Reduction]
    ) -> tuple[Reduction, dict[str, Peaks]]:
        """The first reduction, and peaks: a reduction makes the lists of one set of hits."""
        reductions: list[Reduction] = []
        peaks, count = {}, self._measures.hits_per_sample
        for name, hits in self.state.hits.items():
            reduce = again if reductions else first
            reduction, peaks[name], short = reduce_and_list(reduce, hits, batch.rows, count)
            batch.overflowed[self.index, name] = short
            reductions.append(reduction)
        return reductions[0], peaks

    def _whole_peaks(
        self, value: Tensor | None, names: Iterable[str], **transform: Any
    ) -> dict[str, Peaks]:
        """The peaks for each of these sets of hits, from the whole activation."""
        assert value is not None
        count, hits = self._measures.hits_per_sample, self.state.hits
        return {
            name: whole_peaks(value, self.info, count, largest=hits[name].largest, **transform)
            for name in names
        }


def measures(options: Options) -> Measures:
    """What the options ask of every layer."""
    return Measures(
        stats=options.stats,
        quantiles=options.quantiles,
        topk=options.topk,
        hit_sets=options.hit_sets,
        hits_per_sample=options.hits_per_sample,
        patches=options.patches,
    )


def sample_rows(r: Reduction) -> tuple[Tensor, Tensor]:
    """Maximum and mean of every (sample, channel), float32; NaN without a finite value."""
    finite = r.count - r.nonfinite
    highest = torch.where(finite > 0, r.max, torch.nan)
    return highest, torch.where(finite > 0, r.sum / finite, torch.nan).float()


def stage_value(value: Tensor, target: CaptureTarget) -> Tensor:
    """The value that is measured of a hooked output, float32 [N, C, *spatial]."""
    value = value.float()
    if target.scale is not None:
        value = channel_normalize(value, "batchnorm", scale=target.scale, shift=target.shift)
    return value if target.activation is None else getattr(F, target.activation)(value)


def check_shape(info: LayerInfo, shape: tuple[int, ...], samples: int) -> None:
    """Raise unless a layer gives [samples, C, *spatial] of the size that the probe found."""
    if tuple(shape) != (samples, info.channels, *info.size):
        raise FastconvError(
            f"{info.name} gave {list(shape)} for {samples} samples, but "
            f"{[info.channels, *info.size]} for the first one: every sample must give one row "
            "of the same shape; leave the layer out, or bring the samples to one size"
        )


def _output_shape(info: LayerInfo, x: Tensor) -> tuple[int, ...]:
    """Shape that a convolution gives for the input x, before it runs."""
    assert info.kernel and info.stride and info.padding and info.dilation and info.groups
    shape = ConvGeometry(info.kernel, info.stride, info.padding, info.dilation, info.groups)
    return (x.shape[0], info.channels, *shape.output_size(x.shape[2:]))
