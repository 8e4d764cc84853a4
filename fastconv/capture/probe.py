"""One forward of a few samples that tells what a run needs to know of a model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastconv.capture.batch import map_tensors, tensors_in
from fastconv.capture.network import Forward, Network
from fastconv.capture.receptive_field import propagate
from fastconv.capture.select import Layers, select_calls
from fastconv.capture.stages import find_stage
from fastconv.capture.targets import CaptureTarget, make_targets
from fastconv.capture.trace import Call, Trace, trace_forward
from fastconv.errors import InputError

STAGES = ("conv", "norm", "act")
TWICE = 1 << 20  # values of a sample up to which two are traced: a trace holds all activations
Affine = tuple[Tensor, Tensor]  # scale and shift [C] float32


@dataclass(frozen=True, eq=False)
class Probe:
    """Everything that a run needs to know of a model, from one traced forward.

    Attributes:
        network: the model as it is called; what `capture_forward` runs.
        targets: the layers to capture, in forward order.
        signature: hash of the operations with shapes, dtypes and arguments. Two models of the same
            signature compute the same function of their parameters and inputs of that shape.
        norms: by layer, scale and shift of the batch norm with fixed moments that follows it.
        edges: pairs of captured layers, the output of the first reaching the second with no other
            captured layer on the way.
        layout: the memory format of the inputs: channels_last for images, unless the model has a
            `view` that such a layout breaks.
    """

    network: Network
    targets: list[CaptureTarget]
    signature: str
    norms: dict[str, Affine]
    edges: list[tuple[str, str]]
    layout: torch.memory_format


def probe(
    model: nn.Module | Network,
    example: Any,
    layers: Layers = None,
    stage: str = "conv",
    forward: Forward | None = None,
) -> Probe:
    """Choose layers and find their shapes, stages and receptive fields by one traced forward.

    Args:
        model: any module; it is left as it was found.
        example: [N, C, *spatial], on the device and in the dtype of the model; or a tuple or dict
            of tensors, the first of which is the picture. The first sample is used, twice in one
            batch if it is not large and the model takes that: `squeeze` and moments need two.
        layers: names ("layer1.0.conv1", "relu#1", "block.conv2d#0"), globs and module types, one or
            several; None for every convolution, transposed and functional ones too.
        stage: of convolutions: "conv" their output, "norm" after the normalisation that follows,
            "act" after the activation that follows. Where none follows, `info.stage` says which
            stage was taken; rules in `fastconv/capture/stages.py`. Other layers are taken as is.
        forward: `forward(model, batch)` instead of `model(batch)`.

    Raises:
        LayerError: a layer that does not exist, is never called, or does not return
            [N, C, *spatial]; no convolution in the model.
        InputError: an example of the wrong shape or number of inputs; a model with uninitialised
            lazy modules, or one that is random in eval mode.
    """
    if stage not in STAGES:
        raise InputError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}")
    network = model if isinstance(model, Network) else Network(model, forward)
    network.require_callable(example)
    trace, layout = _trace(network, example)
    with network.running():  # reading a parametrised weight in training mode would change it
        reaches = propagate(trace)
        calls = select_calls(network, trace, reaches, layers)
        targets = make_targets(trace, reaches, calls, stage)
        norms = _norms(trace, calls)
    return Probe(network, targets, trace.signature(), norms, _edges(trace, calls), layout)


def plan_capture(
    model: nn.Module, example: Any, layers: Layers = None, stage: str = "conv"
) -> list[CaptureTarget]:
    """Targets of `probe`."""
    return probe(model, example, layers, stage).targets


def graph_signature(model: nn.Module, example: Any) -> str:
    """Signature as in `Probe`; also of models without convolutions."""
    return _trace(Network(model), example)[0].signature()


def _trace(network: Network, example: Any) -> tuple[Trace, torch.memory_format]:
    """Trace with two equal samples and images in channels_last, as far as the model takes that."""
    tensors = tensors_in(example)
    if not tensors or tensors[0].ndim < 2 or len(tensors[0]) == 0:
        got = list(tensors[0].shape) if tensors else type(example).__name__
        raise InputError(f"the example must be [N, C, *spatial], got {got}")
    layouts = [torch.contiguous_format]
    if tensors[0].ndim == 4:
        layouts.insert(0, torch.channels_last)
    counts = (2, 1) if tensors[0][0].numel() <= TWICE else (1,)
    first_error: Exception | None = None
    for count, layout in itertools.product(counts, layouts):
        batch = map_tensors(example, partial(_repeated, count=count, layout=layout))
        try:
            return trace_forward(network, batch), layout
        except (RuntimeError, InputError) as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _repeated(tensor: Tensor, *, count: int, layout: torch.memory_format) -> Tensor:
    """The first sample, `count` times."""
    if tensor.ndim == 0:
        return tensor
    tensor = tensor[:1].repeat(count, *[1] * (tensor.ndim - 1))
    return tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor


def _norms(trace: Trace, calls: dict[Call, str]) -> dict[str, Affine]:
    found = {}
    for call, name in calls.items():
        stage = find_stage(trace, call, "norm") if call.is_conv else None
        if stage and stage.scale is not None and stage.shift is not None:
            found[name] = stage.scale, stage.shift
    return found


def _edges(trace: Trace, calls: dict[Call, str]) -> list[tuple[str, str]]:
    """Follow every tensor from the captured call that made it to those that read it."""
    inside: dict[int, Call] = {i: call for call in calls for i in range(call.first_op, call.end_op)}
    origins: dict[int, frozenset[str]] = {}
    edges: dict[tuple[str, str], None] = {}
    for i, op in enumerate(trace.ops):
        here = inside.get(i)
        seen = frozenset().union(*(origins.get(id(t), frozenset()) for t in op.inputs))
        if here is not None:
            name = calls[here]
            edges.update({(origin, name): None for origin in sorted(seen - {name})})
            seen = frozenset([name])
        for tensor in (*op.outputs, *op.written):
            origins[id(tensor)] = seen
    return list(edges)
