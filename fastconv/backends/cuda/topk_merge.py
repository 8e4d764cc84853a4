from __future__ import annotations

import torch
from torch import Tensor

from fastconv.backends.cuda.limits import unsupported


def supports(values: Tensor, *rest: object) -> str | None:
    return unsupported(values)


def run(values: Tensor, samples: Tensor, positions: Tensor, *rest) -> tuple[Tensor, ...]:
    *new, largest = rest
    inputs = [t.contiguous() for t in (values, samples, positions, *new)]
    out = [torch.empty_like(t) for t in (*inputs[:3], inputs[1])]
    if values.numel():
        torch.ops.fastconv_cuda.topk_merge(*inputs, largest, out)
    return tuple(out)
