"""Depthwise convolutions; for the others, Triton's kernels use the matrix units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastconv.backends.cuda.channel_reduce import lists_of, number
from fastconv.backends.cuda.limits import DTYPES, float32, unsupported
from fastconv.geometry import ConvGeometry
from fastconv.reduction import CandidateLists, PostOps, empty_fields

_TAPS = (3, 5, 7)  # of a row
_MOST_ROWS = 31


def supports(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (),
    dilation: Sequence[int] = (1,),
    *rest: object,
) -> str | None:
    if weight.ndim > 4:
        return "it has three spatial dimensions"
    if weight.shape[1] != 1 or weight.shape[0] != x.shape[1]:
        return "it is not depthwise (one output channel for each input channel)"
    if weight.shape[-1] not in _TAPS or (weight.ndim == 4 and weight.shape[2] > _MOST_ROWS):
        return f"a window of {list(weight.shape[2:])}; there are kernels for rows of 3, 5 and 7"
    if stride[-1] > 2 or max(dilation) > 1:
        return f"stride {list(stride)}, dilation {list(dilation)}; it takes strides of 1 and 2"
    return unsupported(x)


def run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],  # (before, after) of every dimension
    dilation: Sequence[int],
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    histogram: Tensor | None,
    return_activation: bool,
    post_ops: PostOps | None = None,
    candidates: CandidateLists | None = None,
) -> tuple[Tensor, ...]:
    pairs = tuple(zip(padding[::2], padding[1::2], strict=True))
    geometry = ConvGeometry(tuple(weight.shape[2:]), tuple(stride), pairs, tuple(dilation), groups)
    size = geometry.output_size(x.shape[2:])
    out = empty_fields(x.shape[0], groups, x.device)
    image, last = _image(x)
    written = _written(x, size, last=last) if return_activation else None
    activated = x.new_empty(0) if written is None else written
    if not x.shape[0]:
        return (*out, activated)
    two = 4 - weight.ndim  # missing dimensions, of size 1
    what = (
        image,
        DTYPES.index(x.dtype),
        last,
        weight.contiguous().view(groups, 1, *(1,) * two, *weight.shape[2:]),
        [*(1,) * two, *stride, *(0,) * two, *padding[::2]],
        [*(1,) * two, *size],
    )
    segments = torch.ops.fastconv_cuda.conv_segments(*what, histogram)
    parts = out if segments == 1 else empty_fields(segments * x.shape[0], groups, x.device)
    post_ops = post_ops or PostOps()
    torch.ops.fastconv_cuda.depthwise_reduce(
        *what, bias, float32(scale), float32(shift),
        float32(post_ops.scale), float32(post_ops.shift),
        [number(activation), number(post_ops.activation)], histogram,
        None if written is None else _flat(written, last=last), *lists_of(candidates), parts, out,
    )  # fmt: skip
    return (*out, activated)


def _image(x: Tensor) -> tuple[Tensor, bool]:
    """x as [N, C, height, width], and whether its channels lie side by side."""
    last = not x.is_contiguous() and x.movedim(1, -1).is_contiguous()
    x = x if last else x.contiguous()
    return (x.unsqueeze(2) if x.ndim == 3 else x), last


def _written(x: Tensor, size: tuple[int, ...], *, last: bool) -> Tensor:
    """Memory for [N, C, *size], laid out as x is."""
    n, channels = x.shape[:2]
    if last:
        return x.new_empty((n, *size, channels)).movedim(-1, 1)
    return x.new_empty((n, channels, *size))


def _flat(written: Tensor, *, last: bool) -> Tensor:
    """[N, C, positions] of the same memory."""
    if last:
        return written.movedim(1, -1).flatten(1, -2).transpose(1, 2)
    return written.flatten(2)
