"""Where to take the value of a stage: what follows a convolution in the executed graph.

"conv" is the output of the module. "norm" and "act" follow the tensor through the operations:

- norm: the first operation that reads the output decides. A batch norm with fixed moments, from a
  module or a function, is applied to the hooked convolution as scale and shift. Any other norm
  counts when it is a module without children named "...Norm..." that returns the same shape: its
  call is hooked instead. Otherwise no norm follows, and the stage taken is "conv".
- act: the activation that reads the normalised value (or the output itself, where no norm
  follows), and is the only one to read it. One of `fastconv.reduction.ACTIVATIONS` with its
  default parameters is applied by name; any other counts when it is an element-wise module
  without children: its call is hooked instead. A residual addition, a concatenation or a second
  reader in between means that no activation follows, and the stage taken is "norm" or "conv".

Dropout and identities, which do nothing in eval mode, are looked through.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastconv.capture.receptive_field.rules.mixing import is_training_norm
from fastconv.capture.trace import Call, Op, Trace


@dataclass(frozen=True)
class Stage:
    """Hook `call`, then apply scale, shift and activation to its output."""

    call: Call
    taken: str  # "conv", "norm" or "act"
    scale: Tensor | None = None  # [C] float32
    shift: Tensor | None = None  # [C] float32
    activation: str | None = None


ACTIVATION_OPS: dict[str, tuple[str, dict[str, Any]]] = {  # name: (activation, arguments it needs)
    "relu": ("relu", {}),
    "hardtanh": ("relu6", {"min_val": 0, "max_val": 6}),
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.01}),
    "elu": ("elu", {"alpha": 1, "scale": 1, "input_scale": 1}),
    "gelu": ("gelu", {"approximate": "none"}),
    "silu": ("silu", {}),
    "sigmoid": ("sigmoid", {}),
    "tanh": ("tanh", {}),
    "hardswish": ("hardswish", {}),
}


def find_stage(trace: Trace, call: Call, stage: str) -> Stage:
    """The value of `stage` for the call of a convolution, or of the last stage before it."""
    found = Stage(call, "conv")
    value, end = call.tensor, call.end_op
    if stage == "conv" or value is None:
        return found
    readers = trace.readers(value, end)
    if readers:
        op = trace.ops[readers[0]]
        affine = _affine(op) if op.inputs[0] is value else None
        norm = None if affine else _module_after(trace, value, end, norm=True)
        if affine:
            found = replace(found, taken="norm", scale=affine[0], shift=affine[1])
            value, end = op.outputs[0], readers[0] + 1
        elif norm and norm.tensor is not None:
            found = Stage(norm, "norm")
            value, end = norm.tensor, norm.end_op
    if stage == "norm":
        return found
    readers = trace.readers(value, end)
    name = _activation(trace.ops[readers[0]]) if len(readers) == 1 else None
    if name:
        return replace(found, taken="act", activation=name)
    module = _module_after(trace, value, end, norm=False)
    return Stage(module, "act") if module else found


def _affine(op: Op) -> tuple[Tensor, Tensor] | None:
    """Scale and shift [C] of a batch norm with fixed moments."""
    a = op.arguments
    if "running_mean" not in a or a["running_mean"] is None or is_training_norm(op):
        return None
    mean, variance = a["running_mean"].double(), a["running_var"].double()
    scale = torch.rsqrt(variance + a.get("eps", a.get("epsilon")))
    if a["weight"] is not None:
        scale = scale * a["weight"].double()
    shift = -mean * scale
    if a["bias"] is not None:
        shift = shift + a["bias"].double()
    return scale.float().detach(), shift.float().detach()


def _activation(op: Op) -> str | None:
    name, needed = ACTIVATION_OPS.get(op.plain_name, (None, {}))
    return name if all(op.arguments[key] == value for key, value in needed.items()) else None


def _module_after(trace: Trace, value: Tensor, start: int, *, norm: bool) -> Call | None:
    """The call of a norm, or of an element-wise activation, that alone reads `value` next."""
    readers = trace.readers(value, start)
    for call in trace.calls:
        tensor = call.tensor
        if (
            not readers
            or not call.first_op <= readers[0] < call.end_op
            or call.first_op < start
            or call.function
            or any(call.module.children())
            or len(call.inputs) != 1
            or call.inputs[0] is not value
            or tensor is None
            or tensor.shape != value.shape
        ):
            continue
        is_norm = "norm" in type(call.module).__name__.lower()
        if norm:
            return call if is_norm else None
        inside = trace.ops[call.first_op : call.end_op]
        if is_norm or readers[-1] >= call.end_op:
            continue
        if all(op.pointwise or op.name in ("view", "clone") for op in inside):
            return call
    return None
