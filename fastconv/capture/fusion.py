"""Which convolution calls could run as one fused kernel, and what that kernel would take over.

A fused kernel computes convolution, norm and activation up to the stage that is measured, and
hands their last value to the network in place of the convolution's output; the calls of the norm
and activation modules in between then pass their input on. That is possible where

- the module is exactly a `torch.nn.Conv1d/2d/3d` in float32 with zero padding, and nothing else
  hooks it or has replaced its forward;
- nothing but the norm reads the output of the convolution, and nothing but the activation that of
  the norm; both are plain modules of torch (a functional ReLU may stay, as doing it twice changes
  nothing); and no layer that is captured lies between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fastconv.capture.stages import Stage
from fastconv.capture.trace import Call, Trace

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
IDEMPOTENT = ("relu", "relu6")


@dataclass(frozen=True, eq=False)
class Fusion:
    """A call that could run fused, and the calls that would then pass their input on."""

    absorbed: tuple[tuple[nn.Module, int], ...]  # module, index of its call
    read: bool  # the network reads the value, else it is wanted only reduced


def find_fusion(trace: Trace, call: Call, stage: Stage, captured: Sequence[Call]) -> Fusion | None:
    """How the call of a convolution could run fused up to a stage, where `captured` are hooked."""
    value = call.tensor
    if stage.call is not call or value is None or not _plain(call) or captured.count(call) > 1:
        return None
    last = max(other.end_op for other in captured)  # nothing runs after it
    if not any(i < last for i in trace.readers(value, call.end_op)):
        return Fusion((), read=False)
    absorbed: list[Call] = []
    end = call.end_op
    if stage.scale is not None:
        norm = _only_reader(trace, value, end)
        if norm is None or norm.tensor is None or not isinstance(norm.module, _NormBase):
            return None
        absorbed.append(norm)
        value, end = norm.tensor, norm.end_op
    if stage.activation is not None:
        activation = _only_reader(trace, value, end)
        if activation is not None:
            absorbed.append(activation)
        elif stage.activation not in IDEMPOTENT:
            return None
    if any(one in captured for one in absorbed):
        return None
    return Fusion(tuple((one.module, one.index) for one in absorbed), read=True)


def _plain(call: Call) -> bool:
    """A convolution of torch as it is, which reads one float32 batch."""
    module = call.module
    return (
        type(module) in CONVOLUTIONS
        and module.padding_mode == "zeros"
        and _untouched(module)
        and len(call.inputs) == 1
        and call.inputs[0].ndim == module.weight.ndim
        and call.inputs[0].dtype == module.weight.dtype == torch.float32
        and call.tensor is not None
        and call.tensor.dtype == torch.float32
    )


def _untouched(module: nn.Module) -> bool:
    return "forward" not in vars(module) and not module._forward_hooks


def _only_reader(trace: Trace, value: Tensor, start: int) -> Call | None:
    """The call of a module of torch without children that alone reads a value."""
    readers = trace.readers(value, start)
    if len(readers) != 1:
        return None
    for call in trace.calls:
        if call.first_op <= readers[0] < call.end_op and not any(call.module.children()):
            ours = type(call.module).__module__.startswith("torch.nn.modules.")
            same = len(call.inputs) == 1 and call.inputs[0] is value
            return call if ours and same and _untouched(call.module) else None
    return None
