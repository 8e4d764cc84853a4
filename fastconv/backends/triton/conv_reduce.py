from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastconv.backends.triton import conv_pointer, conv_tma
from fastconv.backends.triton.conv_problem import Epilogue, Given, problem
from fastconv.backends.triton.launch import unsupported
from fastconv.reduction import CandidateLists, PostOps

TAKES = frozenset({"post_ops", "candidates"})


def supports(x: Tensor, weight: Tensor, *rest: object) -> str | None:
    return unsupported(x) or unsupported(weight[None])


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
    case = problem(x, weight, stride, padding, dilation, groups)
    size = case.out_size[3 - (x.ndim - 2) :]
    channels = weight.shape[0]
    written = x.new_empty((x.shape[0], channels, *size) if return_activation else (0,))
    post_ops = post_ops or PostOps()
    given = Given(
        bias,
        scale,
        shift,
        histogram,
        written if return_activation else None,
        post_ops.scale,
        post_ops.shift,
        None if candidates is None else candidates.pointers(),
    )
    largest = candidates is None or candidates.largest
    epilogue = Epilogue(tuple(given), activation, post_ops.activation, largest)
    if groups > 1 and case.group_out < 16:
        fields = conv_pointer.direct(x, weight, case, epilogue)
    elif conv_tma.ineligible(x, case) is None:
        fields = conv_tma.run(x, weight, case, epilogue)
    else:
        fields = conv_pointer.gemm(x, weight, case, epilogue)
    return (*fields, written)
