"""A convolution of the network and its reductions in one kernel."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastconv.capture import CaptureTarget
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
