"""Which layers run as `conv_reduce`, and which run by themselves and are read by `channel_reduce`,
which may at once make of their output what norm and activation would.

The choice follows from the shapes and the options alone, never from a clock or the batch size, so
that every process that works on a run, and `verify` after it, makes the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import torch

from fastconv import dispatch
from fastconv.backends import reference
from fastconv.backends.cpu.conv_reduce import uses_winograd
from fastconv.capture import CaptureTarget
from fastconv.errors import BackendUnavailableError
from fastconv.format.result import LayerInfo
from fastconv.ops.conv_reduce import Convolution, kernel_of_module
from fastconv.run import gpu_cost
from fastconv.run.options import Options

FUSED, SEPARATE = "conv_reduce", "channel_reduce"
COUNTED_AT_ONCE = 512  # channels whose histograms a thread of the C++ kernel keeps till the end


@dataclass(frozen=True, eq=False)
class PlannedLayer:
    """A layer to measure, and how it runs.

    Attributes:
        fused: in one kernel with its reductions.
        in_place: by itself; its reductions write over its output what the network goes on with.
    """

    target: CaptureTarget
    fused: bool
    in_place: bool = False

    @property
    def replaced(self) -> bool:
        """Whether the calls of the layer, and of norm and activation, are run by its sink."""
        return self.fused or self.in_place

    @property
    def kernels(self) -> str:
        """How it runs, in words: bits of deeper layers depend on it."""
        return "channel_reduce in place" if self.in_place else FUSED if self.fused else SEPARATE

    @cached_property
    def info(self) -> LayerInfo:
        """The layer as the file describes it, with the op that measured it."""
        op = FUSED if self.fused else SEPARATE
        return replace(self.target.info, measured_by=op)


def plan_kernels(
    targets: Sequence[CaptureTarget], options: Options, place: torch.device
) -> list[PlannedLayer]:
    """Choose how each layer runs."""
    pays = _pays if place.type == "cpu" else partial(_pays_on_gpu, device=_name(place))
    # A map, or several hits of a sample, are taken from the value that is written.
    if options.maps is not None or options.many_hits:
        targets = [_up_to_the_stage(t) for t in targets]
    if options.outcomes:  # the forward goes on to the output, which needs every value
        targets = [_written(t) for t in targets]
    planned = []
    for target in targets:
        fused = _can(target, options) and pays(target, options)
        planned.append(PlannedLayer(target, fused, not fused and _in_place(target, options, place)))
    return planned


def replays(options: Options, place: torch.device) -> bool:
    """Whether full batches run from a CUDA graph: where the host reads nothing batch by batch."""
    reads = options.many_hits or options.samples or options.maps is not None
    reads = reads or options.outcomes or options.conditions is not None
    known = place.type == "cuda" and gpu_cost.graph_is_faster(_name(place), options.batch_size)
    return known and not reads


def chosen_by(place: torch.device) -> str:
    """What the choice rests on, in words."""
    return gpu_cost.basis(_name(place)) if place.type == "cuda" else "fixed rules"


def _name(place: torch.device) -> str:
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type


def _can(target: CaptureTarget, options: Options) -> bool:
    """Whether a kernel of more than plain torch runs this convolution and reduces it."""
    if options.dtype is not None or target.fusion is None or target.weight is None:
        return False
    if options.many_hits and len(options.hit_sets) > 1:
        return False  # each needs candidate lists of its own, and a kernel makes one
    weight, module = target.weight, cast(Convolution, target.module)
    x = weight.new_empty((0, module.in_channels, *(1,) * (weight.ndim - 2)))
    try:
        kernel = kernel_of_module(x, module, options.backend)
    except BackendUnavailableError:
        return False
    return kernel is not reference.KERNELS["conv_reduce"]


def _in_place(target: CaptureTarget, options: Options, place: torch.device) -> bool:
    """Whether the reductions can do the work of norm and activation, which saves their passes."""
    fusion, weight = target.fusion, target.weight
    if options.dtype is not None or fusion is None or not fusion.read or not fusion.absorbed:
        return False
    if weight is None or (options.many_hits and len(options.hit_sets) > 1):
        return False
    x = weight.new_empty((0, *weight.shape[:1]))
    try:
        dispatch.kernel("channel_reduce", options.backend, place, x, needs={"post_ops"})
    except BackendUnavailableError:
        return False
    return weight.dtype == torch.float32


def _up_to_the_stage(target: CaptureTarget) -> CaptureTarget:
    fusion = target.fusion
    return target if fusion is None else replace(target, fusion=fusion.up_to_the_stage())


def _written(target: CaptureTarget) -> CaptureTarget:
    unread = target.fusion is not None and not target.fusion.read
    return replace(target, fusion=None) if unread else target


def _pays(target: CaptureTarget, options: Options) -> bool:
    """Whether the C++ kernel beats the network's own convolution and a pass over its output.

    Measured (docs/benchmarks.md): where nothing has to be written, and where it needs fewer
    products; but for very many channels.
    """
    fusion, info, weight = target.fusion, target.info, target.weight
    if fusion is None or info.channels > COUNTED_AT_ONCE:
        return False
    if weight is None or weight.dtype != torch.float32:
        return False
    module = cast(Convolution, target.module)
    stride, dilation = list(module.stride), list(module.dilation)
    return not fusion.read or uses_winograd(weight, stride, dilation, module.groups)


def _pays_on_gpu(target: CaptureTarget, options: Options, device: str) -> bool:
    if target.fusion is None or target.weight is None:
        return False
    if target.weight.dtype != torch.float32 and options.many_hits:
        return False  # the first are taken from what is written, which is rounded
    written = target.fusion.read or options.maps is not None  # several hits come from lists
    layer = gpu_cost.layer_of(target, written=written)
    return gpu_cost.fused_is_faster(layer, device)
