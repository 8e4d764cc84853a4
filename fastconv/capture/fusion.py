"""Which convolution calls could run as one fused kernel, and what that kernel would take over.

A fused kernel computes a convolution, measures it at its stage, and hands the network in place of
the convolution's output what norm and activation make of it; the calls of the norm and activation
modules then pass their input on. That is possible where

- the module is exactly a `torch.nn.Conv1d/2d/3d` in float32, float16 or bfloat16 with zero padding,
  and nothing else hooks it (or every module) or has replaced its forward;
- nothing but the norm reads the output of the convolution, and nothing but the activation that of
  the norm, nor does a hooked or captured module around them return it; both are plain modules of
  torch (up to the stage, a functional ReLU may stay, as doing it twice changes nothing); and no
  layer that is captured lies between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fastconv.capture.stages import Stage, find_stage
from fastconv.capture.trace import Call, Trace
from fastconv.reduction import PostOps

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
IDEMPOTENT = ("relu", "relu6")

Absorbed = tuple[tuple[nn.Module, int], ...]  # modules, and the index of the call of each


@dataclass(frozen=True, eq=False)
class Fusion:
    """A call that could run fused, and the calls that would then pass their input on."""

    absorbed: Absorbed  # up to the stage that is measured, and beyond
    read: bool  # the network reads the output; else only its reductions are wanted
    post_ops: PostOps | None = None  # applied to the measured value before the network reads it
    beyond: int = 0  # how many of `absorbed` do that

    def up_to_the_stage(self) -> Fusion:
        """Drop the post-ops; keep what leads to the measured stage."""
        inner = self.absorbed[: len(self.absorbed) - self.beyond]
        return replace(self, absorbed=inner, post_ops=None, beyond=0)


def find_fusion(trace: Trace, call: Call, stage: Stage, captured: Sequence[Call]) -> Fusion | None:
    """Find how a convolution could run fused up to a stage; calls in `captured` stay hooked."""
    value = call.tensor
    if stage.call is not call or value is None or not _plain(call) or captured.count(call) > 1:
        return None
    if _seen_outside(trace, value, call, captured):
        return None
    last = max(other.end_op for other in captured)  # nothing runs after it
    if not any(i < last for i in trace.readers(value, call.end_op)):
        return Fusion((), read=False)
    full = find_stage(trace, call, "act")  # as far as a kernel could go
    if full.call is not call:
        full = stage
    absorbed: list[Call] = []
    post_ops, beyond = PostOps(), 0
    end = call.end_op
    if full.scale is not None:
        norm = _only_reader(trace, value, end)
        if (
            norm is None
            or norm.tensor is None
            or norm in captured
            or not isinstance(norm.module, _NormBase)
        ):
            return None if stage.scale is not None else Fusion((), read=True)
        absorbed.append(norm)
        value, end = norm.tensor, norm.end_op
        if stage.scale is None:
            post_ops, beyond = PostOps(full.scale, full.shift), 1
    if full.activation is not None:
        activation = _only_reader(trace, value, end)
        inner = absorbed[0] if absorbed else call
        if _seen_outside(trace, value, inner, captured):  # before the activation
            return None
        if activation is not None and activation not in captured:
            absorbed.append(activation)
            if stage.activation is None:
                post_ops, beyond = post_ops._replace(activation=full.activation), beyond + 1
        elif stage.activation is not None and (activation or full.activation not in IDEMPOTENT):
            return None
    calls = tuple((one.module, one.index) for one in absorbed)
    return Fusion(calls, read=True, post_ops=post_ops if beyond else None, beyond=beyond)


def _plain(call: Call) -> bool:
    """A convolution of torch as it is, which reads one batch of the type of its weights."""
    module = call.module
    return (
        call.function is None
        and type(module) in CONVOLUTIONS
        and module.padding_mode == "zeros"
        and _untouched(module)
        and len(call.inputs) == 1
        and call.inputs[0].ndim == module.weight.ndim
        and module.weight.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and call.inputs[0].dtype == module.weight.dtype
        and call.tensor is not None
        and call.tensor.dtype == module.weight.dtype
    )


def _untouched(module: nn.Module) -> bool:
    hooks = (
        module._forward_hooks,
        torch.nn.modules.module._global_forward_hooks,
        torch.nn.modules.module._global_forward_pre_hooks,
    )
    return "forward" not in vars(module) and not any(hooks)


def _seen_outside(trace: Trace, value: Tensor, call: Call, captured: Sequence[Call]) -> bool:
    """Whether a module around `call` returns its value as it is to a hook or a captured layer."""
    return any(
        other.tensor is value and (other in captured or not _untouched(other.module))
        for other in trace.calls
        if other is not call
    )


def _only_reader(trace: Trace, value: Tensor, start: int) -> Call | None:
    """The call of a module of torch without children that alone reads a value."""
    readers = trace.readers(value, start)
    if len(readers) != 1:
        return None
    for call in trace.calls:
        if call.function or any(call.module.children()):
            continue
        if call.first_op <= readers[0] < call.end_op:
            ours = type(call.module).__module__.startswith("torch.nn.modules.")
            same = len(call.inputs) == 1 and call.inputs[0] is value
            seen = _untouched(call.module) and not call.module._forward_pre_hooks
            return call if ours and same and seen else None
    return None
