from __future__ import annotations

import torch
from torch import Tensor

from fastconv.backends.cuda.limits import DTYPES, float32, unsupported
from fastconv.reduction import ACTIVATIONS, CandidateLists, empty_fields


def supports(x: Tensor, *rest: object) -> str | None:
    return unsupported(x)


def run(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    histogram: Tensor | None,
    candidates: CandidateLists | None = None,
) -> tuple[Tensor, ...]:
    n, channels = x.shape[:2]
    rows, last = rows_of(x)
    out = empty_fields(n, channels, x.device)
    if not n:
        return out
    what = (rows, DTYPES.index(x.dtype), last)
    segments = torch.ops.fastconv_cuda.reduce_segments(*what, histogram)
    parts = out if segments == 1 else empty_fields(segments * n, channels, x.device)
    torch.ops.fastconv_cuda.channel_reduce(
        *what, float32(scale), float32(shift), number(activation), histogram, *lists_of(candidates),
        parts, out,
    )  # fmt: skip
    return out


def number(activation: str | None) -> int:
    """Of an activation in csrc/params.h."""
    return 0 if activation is None else 1 + ACTIVATIONS.index(activation)


def lists_of(candidates: CandidateLists | None) -> tuple[list[Tensor], bool]:
    """Lists to fill, none or four tensors, and whether the largest values are wanted."""
    return ([], False) if candidates is None else (list(candidates[:4]), candidates.largest)


def rows_of(x: Tensor) -> tuple[Tensor, bool]:
    """x as [N, C, positions], and whether channels lie side by side; other strides are copied."""
    shape = (*x.shape[:2], x.shape[2:].numel())
    last = x.movedim(1, -1)
    if not x.is_contiguous() and last.is_contiguous():
        return last.reshape(shape[0], shape[2], shape[1]).transpose(1, 2), True
    return x.contiguous().view(shape), False
