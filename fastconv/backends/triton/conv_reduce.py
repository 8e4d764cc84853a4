from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastconv.backends.triton import conv_pointer, conv_tma
from fastconv.backends.triton.conv_problem import Epilogue, Given, problem
from fastconv.backends.triton.launch import unsupported
from fastconv.reduction import Append, Onward


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
    onward: Onward | None = None,
    append: Append | None = None,
) -> tuple[Tensor, ...]:
    case = problem(x, weight, stride, padding, dilation, groups)
    size = case.out_size[3 - (x.ndim - 2) :]
    channels = weight.shape[0]
    written = x.new_empty((x.shape[0], channels, *size) if return_activation else (0,))
    onward = onward or Onward()
    given = Given(
        bias,
        scale,
        shift,
        histogram,
        written if return_activation else None,
        onward.scale,
        onward.shift,
        None if append is None else append.pointers(),
    )
    largest = append is None or append.largest
    epilogue = Epilogue(tuple(given), activation, onward.activation, largest)
    if groups > 1 and case.group_out < 16:
        fields = conv_pointer.direct(x, weight, case, epilogue)
    elif conv_tma.ineligible(x, case) is None:
        fields = conv_tma.run(x, weight, case, epilogue)
    else:
        fields = conv_pointer.gemm(x, weight, case, epilogue)
    return (*fields, written)
