from __future__ import annotations

import torch
import triton
from torch import Tensor

from fastconv.backends.triton.kernels.topk_merge import topk_merge_kernel
from fastconv.backends.triton.launch import launch, unsupported


def supports(values: Tensor, *rest: object) -> str | None:
    return unsupported(values)


def run(
    values: Tensor,
    samples: Tensor,
    positions: Tensor,
    new_values: Tensor,
    new_samples: Tensor,
    new_positions: Tensor,
    largest: bool,
) -> tuple[Tensor, ...]:
    channels, slots = values.shape
    candidates = new_values.shape[1]
    out = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (values, samples)]
    out += [torch.empty_like(out[1]) for _ in range(2)]
    if channels and slots:
        block = min(triton.next_power_of_2(slots + candidates), 128)
        launch(
            topk_merge_kernel,
            (channels, triton.cdiv(slots + candidates, block)),
            values.device,
            warps=4,
            stages=1,
            old=tuple(t.contiguous() for t in (values, samples, positions)),
            new=tuple(t.contiguous() for t in (new_values, new_samples, new_positions)),
            out=tuple(out),
            SLOTS=slots,
            CANDIDATES=candidates,
            LARGEST=largest,
            BLOCK=block,
            STEP=min(block, 16),
        )
    return tuple(out)
