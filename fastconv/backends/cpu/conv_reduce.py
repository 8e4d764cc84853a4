from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastconv.backends.cpu.channel_reduce import MOST_POSITIONS
from fastconv.reduction import ACTIVATIONS, CandidateLists, PostOps

DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # in the order of csrc/params.h
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def supports(input: Tensor, *rest: object) -> str | None:
    if input.dtype not in DTYPES:
        return f"the C++ kernels take float32, float16 and bfloat16, got {input.dtype}"
    if input.shape[2:].numel() > MOST_POSITIONS:
        return f"one channel has {input.shape[2:].numel()} positions, more than 2^30"
    return None


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
    packed: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Implement `fastconv::conv_reduce`; `packed`: result of `pack_weight`."""
    weight, weight_last = _dense(weight)
    scale_and_shift = (None, None) if post_ops is None else post_ops[:2]
    post = (*scale_and_shift, -1 if post_ops is None else _number(post_ops.activation))
    lists = (None, None, None, None, False) if candidates is None else candidates
    return torch.ops.fastconv_cpu.conv_reduce.default(
        input, weight, weight_last, packed, bias, stride, padding, dilation, groups, scale, shift,
        _number(activation), histogram, return_activation, return_activation and _last(input),
        *post, *lists,
    )  # fmt: skip


def pack_weight(
    weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    """The weight as the kernels of the instruction set in use read it: up to twice its size.

    A call packs it anew, which costs a few percent of late layers; who runs a convolution again
    and again, and knows that its weight stays as it is, packs it once.
    """
    return torch.ops.fastconv_cpu.pack_weight(*_dense(weight), stride, dilation, groups)


def uses_winograd(
    weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> bool:
    """Whether four outputs take 16 products in place of 36, whatever the input."""
    return torch.ops.fastconv_cpu.uses_winograd(weight, stride, dilation, groups)


def _number(activation: str | None) -> int:
    return 0 if activation is None else 1 + ACTIVATIONS.index(activation)


def _dense(weight: Tensor) -> tuple[Tensor, bool]:
    """The weight contiguous, or as it is and True where its channels are innermost."""
    if _last(weight):
        return weight, True
    return weight.contiguous(), False


def _last(x: Tensor) -> bool:
    """Whether channels are innermost, and that is not just contiguous."""
    if x.ndim not in _FORMATS or x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=_FORMATS[x.ndim])
