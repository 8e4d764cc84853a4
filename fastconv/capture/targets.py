"""What to capture of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from fastconv.capture.fusion import Fusion, find_fusion
from fastconv.capture.receptive_field import Reach, layer_fields, propagate
from fastconv.capture.select import Layers, select_calls
from fastconv.capture.stages import Stage, find_stage
from fastconv.capture.trace import Call, Trace, trace_forward
from fastconv.errors import InputError
from fastconv.format.result import LayerInfo
from fastconv.geometry import ConvGeometry

STAGES = ("conv", "norm", "act")


@dataclass(frozen=True, eq=False)
class CaptureTarget:
    """One layer to capture: which call to hook, and what to apply to its output."""

    info: LayerInfo
    weight: Tensor | None  # [C_out, C_in/groups, *kernel]; the parameter itself, not a copy
    scale: Tensor | None  # [C] float32: the value is activation(scale * output + shift)
    shift: Tensor | None  # [C] float32
    activation: str | None
    module: nn.Module  # whose call `index` is hooked
    index: int
    fusion: Fusion | None = None  # how that call could run fused with what is measured of it


def plan_capture(
    model: nn.Module, example: Tensor, layers: Layers = None, stage: str = "conv"
) -> list[CaptureTarget]:
    """Choose layers and find their shapes, stages and receptive fields by one probe forward.

    Args:
        model: any module that takes one tensor; it is left as it was found.
        example: [N, C, *spatial], one or two samples, on the device and in the dtype of the model.
        layers: names ("layer1.0.conv1", "relu#1"), globs and module types, one or several; None
            for every convolution module, transposed ones too.
        stage: of convolutions: "conv" their output, "norm" after the normalisation that follows,
            "act" after the activation that follows. Where none follows, `info.stage` says which
            stage was taken; rules in `fastconv/capture/stages.py`. Other layers are taken as is.

    Returns:
        One target per layer, in forward order. `info.fields` and `info.status` hold for inputs
        of the spatial size of `example`.

    Raises:
        LayerError: a layer that does not exist, is never called, or does not return
            [N, C, *spatial]; no convolution in the model.
        InputError: an example of the wrong shape, a model with uninitialised lazy modules.
    """
    if stage not in STAGES:
        raise InputError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}")
    if example.ndim < 2 or len(example) == 0:
        raise InputError(f"the example must be [N, C, *spatial], got {list(example.shape)}")
    trace = trace_forward(model, example)
    reaches = propagate(trace)
    calls = select_calls(model, trace, reaches, layers)
    stages = [
        find_stage(trace, call, stage) if isinstance(call.module, _ConvNd) else Stage(call, "conv")
        for call in calls
    ]
    captured = [found.call for found in stages]
    return [
        _target(trace, reaches, call, found, find_fusion(trace, call, found, captured))
        for call, found in zip(calls, stages, strict=True)
    ]


def _target(
    trace: Trace, reaches: dict[Call, Reach], call: Call, found: Stage, fusion: Fusion | None
) -> CaptureTarget:
    module: Any = call.module
    is_conv = isinstance(module, _ConvNd)
    tensor = found.call.tensor
    assert tensor is not None  # selected, or found to have the shape of the selected one
    sizes = trace.example.shape[2:]
    fields, status = layer_fields(reaches[found.call], tensor.shape, sizes)
    geometry: dict[str, Any] = {}
    if is_conv:
        shape = ConvGeometry.create(
            module.kernel_size, module.stride, module.padding, module.dilation, module.groups
        )
        geometry = vars(shape) | {"transposed": isinstance(module, _ConvTransposeNd)}
    info = LayerInfo(
        name=call.name,
        module_path=call.path,
        kind=type(module).__name__,
        stage=found.taken,
        channels=tensor.shape[1],
        size=tuple(tensor.shape[2:]),
        fields=fields,
        status=status,
        **geometry,
    )
    return CaptureTarget(
        info=info,
        weight=_weight(trace, call) if is_conv else None,
        scale=found.scale,
        shift=found.shift,
        activation=found.activation,
        module=found.call.module,
        index=found.call.index,
        fusion=fusion,
    )


def _weight(trace: Trace, call: Call) -> Tensor:
    """The weight that the call used, which a parametrisation may have computed."""
    used = [
        op.arguments for op in trace.ops[call.first_op : call.end_op] if op.name == "convolution"
    ]
    module: Any = call.module
    weight = module.weight.detach()
    if used and used[-1]["weight"].dtype == weight.dtype:  # else autocast made a copy
        weight = used[-1]["weight"].detach()
    if isinstance(module, _ConvTransposeNd):  # [C_in, C_out/groups, *kernel]
        weight = weight.unflatten(0, (module.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight
