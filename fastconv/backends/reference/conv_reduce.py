from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.backends.reference.channel_reduce import fill_lists, reduce_positions, transform
from fastconv.reduction import CandidateLists, PostOps


def conv_reduce(
    input: Tensor,
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
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    conv = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
    before, after = padding[::2], padding[1::2]
    x = input.to(dtype)
    if before != after:
        pairs = list(zip(before, after, strict=True))
        x = F.pad(x, [p for pair in reversed(pairs) for p in pair])
        before = [0] * len(pairs)
    bias = None if bias is None else bias.to(dtype)
    y = conv(x, weight.to(dtype), bias, list(stride), list(before), list(dilation), groups)
    value = transform(y, scale, shift, activation)
    fields = reduce_positions(value.flatten(2), histogram)
    if candidates is not None:
        fill_lists(value.flatten(2), candidates)
    if post_ops is not None:
        value = transform(value, *post_ops)
    written = value.to(input.dtype).contiguous() if return_activation else input.new_empty(0)
    return (*fields, written)
