from __future__ import annotations

import torch
from torch import Tensor

from fastconv.reduction import ACTIVATIONS, CandidateLists, PostOps, empty_fields

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST_POSITIONS = 2**30  # of a channel: the kernels count them in int32


def supports(x: Tensor, *rest: object) -> str | None:
    if x.dtype not in DTYPES:
        return f"its kernels take float32, float16 and bfloat16, not {x.dtype}"
    if x.shape[2:].numel() > MOST_POSITIONS:
        return f"one channel has {x.shape[2:].numel()} positions, more than 2^30"
    return None


def channel_reduce(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    histogram: Tensor | None,
    candidates: CandidateLists | None = None,
    post_ops: PostOps | None = None,
) -> tuple[Tensor, ...]:
    out = empty_fields(x.shape[0], x.shape[1], x.device)
    rows, channels_last = rows_of(x)
    lists = (None, None, None, None, False) if candidates is None else candidates
    post = post_ops or PostOps()
    torch.ops.fastconv_cpu.channel_reduce(
        rows, DTYPES.index(x.dtype), channels_last, _per_channel(scale), _per_channel(shift),
        _code(activation), histogram, *out, *lists, post_ops is not None,
        _per_channel(post.scale), _per_channel(post.shift), _code(post.activation),
    )  # fmt: skip
    if post_ops is not None and rows.data_ptr() != x.data_ptr():
        x.copy_(rows.view(x.shape))
    return out


def _code(activation: str | None) -> int:
    return 0 if activation is None else 1 + ACTIVATIONS.index(activation)


def _per_channel(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.float().contiguous()


def rows_of(x: Tensor) -> tuple[Tensor, bool]:
    """x as [N, C, positions] and whether channels lie side by side; a copy for other strides.

    The choice does not depend on the batch size: the order of the sums follows from it.
    """
    n, channels, *spatial = x.shape
    step, extent = None, 1  # stride between positions, and how many positions so far
    for size, stride in zip(reversed(spatial), reversed(x.stride()[2:]), strict=True):
        if size > 1:
            step = stride if step is None else step
            if step == 0 or stride != step * extent:
                return _copied_rows(x)
            extent *= size
    if step == 1:
        return x.as_strided((n, channels, extent), (*x.stride()[:2], 1)), False
    if channels == 1 or x.stride(1) == 1:
        return x.as_strided((n, channels, extent), (x.stride(0), 1, step or 1)), True
    return _copied_rows(x)


def _copied_rows(x: Tensor) -> tuple[Tensor, bool]:
    n, channels, extent = *x.shape[:2], x.shape[2:].numel()
    rows = x.contiguous().as_strided((n, channels, extent), (channels * extent, extent, 1))
    return rows, extent == 1
