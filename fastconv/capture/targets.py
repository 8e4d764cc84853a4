"""Targets: the layers to capture, each with the call to hook and the value to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fastconv.capture.fusion import Fusion, find_fusion
from fastconv.capture.receptive_field import Reach, layer_fields
from fastconv.capture.select import instances_a_sample
from fastconv.capture.stages import Stage, find_stage
from fastconv.capture.trace import CONVOLUTION_OPS, Call, Op, Trace
from fastconv.format.result import LayerInfo
from fastconv.geometry import ConvGeometry


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
    function: str | None = None  # "conv2d": the convolution of that name and index in `module`
    conv: nn.Module | None = None  # the convolution module, also where another call is hooked
    instances: int = 1  # rows of the output a sample
    fusion: Fusion | None = None  # how that call could run fused with what is measured of it


def make_targets(
    trace: Trace, reaches: dict[Call, Reach], calls: dict[Call, str], stage: str
) -> list[CaptureTarget]:
    """Targets of the calls chosen, under the names given."""
    stages = [find_stage(trace, call, stage if call.is_conv else "conv") for call in calls]
    captured = [found.call for found in stages]
    return [
        _target(trace, reaches, call, name, found, captured)
        for (call, name), found in zip(calls.items(), stages, strict=True)
    ]


def _target(
    trace: Trace,
    reaches: dict[Call, Reach],
    call: Call,
    name: str,
    found: Stage,
    captured: Sequence[Call],
) -> CaptureTarget:
    tensor = found.call.tensor
    assert tensor is not None  # selected, or found to have the shape of the selected one
    instances = instances_a_sample(tensor, len(trace.example))
    folded = (instances,) if instances > 1 else ()
    fields, status = layer_fields(
        reaches[found.call], tensor.shape, trace.sizes, folded=bool(folded)
    )
    used = _convolution_of(trace, call) if call.is_conv else None
    info = LayerInfo(
        name=name,
        module_path=call.path,
        kind=call.function or type(call.module).__name__,
        stage=found.taken,
        channels=tensor.shape[1],
        size=(*folded, *tensor.shape[2:]),
        fields=fields,
        status=status,
        **_geometry(call, used),
    )
    return CaptureTarget(
        info=info,
        weight=_weight(call, used) if call.is_conv else None,
        scale=found.scale,
        shift=found.shift,
        activation=found.activation,
        module=found.call.module,
        index=found.call.index,
        function=found.call.function,
        conv=call.module if isinstance(call.module, _ConvNd) else None,
        instances=instances,
        fusion=None if folded or call.function else find_fusion(trace, call, found, captured),
    )


def _convolution_of(trace: Trace, call: Call) -> Op | None:
    """The last convolution of a call."""
    inside = trace.ops[call.first_op : call.end_op]
    return next((op for op in reversed(inside) if op.name in CONVOLUTION_OPS), None)


def _geometry(call: Call, used: Op | None) -> dict[str, Any]:
    if not call.is_conv:
        return {}
    module: Any = call.module
    if call.function is None:
        m, transposed = module, module.transposed
        shape = ConvGeometry.create(m.kernel_size, m.stride, m.padding, m.dilation, m.groups)
    else:
        assert used is not None
        a = used.arguments
        transposed, kernel = a["transposed"], a["weight"].shape[2:]
        shape = ConvGeometry.create(kernel, a["stride"], a["padding"], a["dilation"], a["groups"])
    return shape._asdict() | {"transposed": transposed}


def _weight(call: Call, used: Op | None) -> Tensor:
    """The weight that the call used, which a parametrisation may have computed."""
    module: Any = call.module
    weight = None if used is None else used.arguments["weight"].detach()
    if call.function is None:
        own = module.weight.detach()
        if weight is None or weight.dtype != own.dtype:  # autocast made a copy
            weight = own
        groups, transposed = module.groups, module.transposed
    else:
        assert used is not None
        groups, transposed = used.arguments["groups"], used.arguments["transposed"]
    assert weight is not None
    if transposed:  # [C_in, C_out/groups, *kernel]
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight
