"""The reductions of `conv_reduce` over an activation that already exists (the hook form)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastconv import dispatch
from fastconv.errors import InputError
from fastconv.ops.checks import (
    check_activation,
    check_affine,
    check_dtype,
    histogram_buffer,
)
from fastconv.reduction import CandidateLists, PostOps, Reduction, empty_fields

torch.library.define(
    "fastconv::channel_reduce",
    "(Tensor x, Tensor? scale, Tensor? shift, str? activation, Tensor(a!)? histogram,"
    " str backend='auto')"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("fastconv::channel_reduce", ("CPU", "CUDA"))
def _run(x, scale, shift, activation, histogram, backend="auto"):
    args = (x, scale, shift, activation, histogram)
    return dispatch.select("channel_reduce", backend, x.device, *args)(*args)


@torch.library.register_fake("fastconv::channel_reduce")
def _fake(x, scale, shift, activation, histogram, backend="auto"):
    return empty_fields(x.shape[0], x.shape[1], x.device)


def channel_reduce(
    x: Tensor,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str | None = None,
    histogram: bool | Tensor = False,
    backend: str = "auto",
    candidates: CandidateLists | None = None,
    post_ops: PostOps | None = None,
) -> Reduction:
    """Reduce `activation(scale * x + shift)` over the positions of each (sample, channel).

    Args:
        x: [N, C, *spatial] with 0 to 3 spatial dimensions, float32, float16, bfloat16 or float64
            (float64 on the reference backend only); any strides, without a copy where the
            activation is contiguous or channels_last.
        scale, shift: [C], applied in float32 (float64 for float64 input).
        activation: None or a name in `fastconv.reduction.ACTIVATIONS`, with torch's defaults.
        histogram: True counts the values in the bins of `histogram_edges()`; a contiguous int64
            [C, bins] tensor is added into, and returned.
        backend: "auto", or a name from `fastconv.backends()["channel_reduce"]`.
        candidates: private: lists that a kernel fills which takes them (`Kernel.takes`).
        post_ops: private: `x` is overwritten by what these make of the value reduced, by a kernel
            that takes them.

    Returns:
        A `Reduction` of [N, C] tensors.

    Raises:
        InputError: wrong rank, dtype, shape or device.
        BackendUnavailableError: the named backend cannot run this call.

    Numerics:
        Values are float32; sums are accumulated in float64 in an order fixed by the shape and
        memory layout of one sample, so they do not depend on the batch or the number of threads.
        Ties go to the first position. Non-finite values are counted and otherwise left out.

    Memory:
        One read of `x`; [N, C] results; nothing of the size of `x` (except on the reference).

    Inference only: no gradient flows through the result.

    Example:
        >>> import fastconv, torch
        >>> x = torch.tensor([[[-3.0, -1.0, 2.0, 2.0]]])
        >>> found = fastconv.channel_reduce(x, activation="relu", histogram=True)
        >>> found.sum.item(), found.argmax.item(), found.positive.item()
        (4.0, 2, 2)
        >>> edges = fastconv.histogram_edges()
        >>> filled = found.histogram[0].nonzero().flatten()
        >>> found.histogram[0, filled].tolist(), edges[filled].tolist()
        ([2, 2], [-9.5367431640625e-07, 2.0])
    """
    check_dtype(x, "x")
    if not 2 <= x.ndim <= 5:
        raise InputError(
            f"x must be [N, C, *spatial] with 0 to 3 spatial dimensions, got {list(x.shape)}"
        )
    if 0 in x.shape[1:]:
        raise InputError(f"x has no channels or no positions: {list(x.shape)}")
    check_affine(scale, shift, x.shape[1], x)
    check_activation(activation)
    counts = histogram_buffer(histogram, x.shape[1], x.device)
    wanted = {"candidates": candidates, "post_ops": post_ops}
    extra = {name: value for name, value in wanted.items() if value is not None}
    fields = dispatch.run("channel_reduce", backend, x, scale, shift, activation, counts, **extra)
    return Reduction._make((*fields, x.shape[2:].numel(), counts, None))
