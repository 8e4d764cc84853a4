from __future__ import annotations

import triton
from torch import Tensor

from fastconv.backends.triton.kernels.exact_add import exact_add_kernel
from fastconv.backends.triton.launch import launch, no_device

_BLOCK = 256


def supports(sums: Tensor, values: Tensor) -> str | None:
    return no_device(values)


def run(sums: Tensor, values: Tensor) -> None:
    if values.numel():
        launch(
            exact_add_kernel,
            (triton.cdiv(values.numel(), _BLOCK),),
            values.device,
            warps=4,
            stages=1,
            values=values.contiguous(),
            sums=sums,
            CHANNELS=sums.shape[0],
            COUNT=values.numel(),
            LIMBS=sums.shape[1],
            BLOCK=_BLOCK,
        )
