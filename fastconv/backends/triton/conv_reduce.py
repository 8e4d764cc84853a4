from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastconv.backends.triton import conv_pointer, conv_tma
from fastconv.backends.triton.conv_problem import Epilogue, problem
from fastconv.backends.triton.launch import unsupported


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
) -> tuple[Tensor, ...]:
    case = problem(x, weight, stride, padding, dilation, groups)
    size = case.out_size[3 - (x.ndim - 2) :]
    channels = weight.shape[0]
    written = x.new_empty((x.shape[0], channels, *size) if return_activation else (0,))
    given = Epilogue(
        bias, scale, shift, histogram, written if return_activation else None, activation
    )
    if groups > 1 and case.group_out < 16:
        fields = conv_pointer.direct(x, weight, case, given)
    elif conv_tma.ineligible(x, case) is None:
        fields = conv_tma.run(x, weight, case, given)
    else:
        fields = conv_pointer.gemm(x, weight, case, given)
    return (*fields, written)
