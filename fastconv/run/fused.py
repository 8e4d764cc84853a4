"""A convolution of the network with its reductions, and with norm and activation after it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastconv.capture import CaptureTarget
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.conv_reduce import conv_reduce_in_network
from fastconv.reduction import CandidateLists, PostOps, Reduction


def run_fused(
    target: CaptureTarget,
    inputs: Tensor,
    *,
    histogram: Tensor | bool = False,
    return_activation: bool,
    post_ops: PostOps | None = None,
    candidates: CandidateLists | None = None,
    packed: dict[nn.Module, Tensor] | None = None,
    backend: str,
) -> Reduction:
    """Run the convolution of a target on its input, up to its stage, and reduce that.

    The activation, where asked for, is the value of the stage, or what `post_ops` makes of it.
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
        post_ops=post_ops,
        candidates=candidates,
        packed=packed,
        backend=backend,
    )


def run_in_place(
    target: CaptureTarget,
    inputs: Tensor,
    *,
    histogram: Tensor | bool = False,
    return_activation: bool = True,
    post_ops: PostOps | None = None,
    candidates: CandidateLists | None = None,
    packed: dict[nn.Module, Tensor] | None = None,
    backend: str,
) -> Reduction:
    """`run_fused` by the network's own convolution: its output is reduced, and written over."""
    module: Any = target.module
    value = type(module).forward(module, inputs)  # that of the module itself may be replaced
    reduction = channel_reduce(
        value,
        scale=target.scale,
        shift=target.shift,
        activation=target.activation,
        histogram=histogram,
        candidates=candidates,
        post_ops=post_ops or PostOps(),
        backend=backend,
    )
    return reduction._replace(activation=value)
