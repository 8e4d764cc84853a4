"""Which layers run as `conv_reduce`, and which run by themselves and are read by `channel_reduce`.

The choice follows from the shapes and the options alone, never from a clock or the batch size, so
that every process that works on a run, and `verify` after it, makes the same one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastconv import dispatch
from fastconv.capture import CaptureTarget
from fastconv.ops.conv_reduce import conv_reduce_in_network
from fastconv.reduction import Append, Onward, Reduction
from fastconv.run import gpu_cost
from fastconv.run.options import Options

FUSED, SEPARATE = "conv_reduce", "channel_reduce"
COUNTED_AT_ONCE = 512  # channels whose histograms a thread of the C++ kernel keeps till the end
WORTH_WRITING = 8192  # positions of a sample from which passes of norm and activation count


def plan_kernels(
    targets: Sequence[CaptureTarget], options: Options, place: torch.device
) -> list[CaptureTarget]:
    """The targets with the op that measures them, `info.measured_by`."""
    kernels = {"cpu": "cpu", "cuda": "triton"}.get(place.type)
    able = (
        kernels is not None
        and options.dtype is None
        and options.backend in ("auto", kernels)
        and kernels in dispatch.backends(place)["conv_reduce"]
    )
    pays = _pays if place.type == "cpu" else partial(_pays_on_gpu, device=_name(place))
    # A map, or several hits of a sample, are taken from the value that is written.
    if options.maps is not None or options.many_hits:
        targets = [_up_to_the_stage(t) for t in targets]
    return [_measured(t, FUSED if able and pays(t, options) else SEPARATE) for t in targets]


def replays(options: Options, place: torch.device) -> bool:
    """Whether full batches run from a CUDA graph: where the host reads nothing batch by batch."""
    reads = options.many_hits or options.samples or options.maps is not None
    known = place.type == "cuda" and gpu_cost.graph_is_faster(_name(place), options.batch_size)
    return known and not reads


def chosen_by(place: torch.device) -> str:
    """What the choice rests on, in words."""
    return gpu_cost.basis(_name(place)) if place.type == "cuda" else "fixed rules"


def _name(place: torch.device) -> str:
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type


def _up_to_the_stage(target: CaptureTarget) -> CaptureTarget:
    fusion = target.fusion
    return target if fusion is None else replace(target, fusion=fusion.up_to_the_stage())


def _measured(target: CaptureTarget, op: str) -> CaptureTarget:
    return replace(target, info=replace(target.info, measured_by=op))


def _pays(target: CaptureTarget, options: Options) -> bool:
    """Whether the C++ kernel beats the network's own convolution and a read of its output.

    Measured (docs/benchmarks.md): where nothing has to be written; and where norm or activation
    run with it on large maps, which saves their passes over memory; but for very many channels.
    """
    fusion, info, weight = target.fusion, target.info, target.weight
    if fusion is None or info.channels > COUNTED_AT_ONCE:
        return False
    if weight is None or weight.dtype != torch.float32:
        return False
    return not fusion.read or (bool(fusion.absorbed) and math.prod(info.size) >= WORTH_WRITING)


def _pays_on_gpu(target: CaptureTarget, options: Options, device: str) -> bool:
    if target.fusion is None or target.weight is None:
        return False
    if target.weight.dtype != torch.float32 and options.many_hits:
        return False  # the first are taken from what is written, which is rounded
    written = target.fusion.read or options.maps is not None  # several hits come from lists
    layer = gpu_cost.layer_of(target, written=written)
    return gpu_cost.fused_is_faster(layer, device)


def run_fused(
    target: CaptureTarget,
    inputs: Tensor,
    *,
    histogram: Tensor | bool = False,
    return_activation: bool,
    onward: Onward | None = None,
    append: Append | None = None,
    packed: dict[nn.Module, Tensor] | None = None,
    backend: str,
) -> Reduction:
    """The convolution of a target on its input, up to its stage, and the reductions of that.

    The activation, where asked for, is the value of the stage, or what `onward` makes of it.
    """
    module: Any = target.module
    return conv_reduce_in_network(
        inputs,
        module,
        scale=target.scale,
        shift=target.shift,
        activation=target.activation,
        histogram=histogram,
        written=return_activation,
        onward=onward,
        append=append,
        packed=packed,
        backend=backend,
    )
