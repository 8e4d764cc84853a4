from __future__ import annotations

import torch
from torch import Tensor


def topk_merge(values: Tensor, samples: Tensor, positions: Tensor, *rest) -> tuple[Tensor, ...]:
    *new, largest = rest
    inputs = [t.contiguous() for t in (values, samples, positions, *new)]
    out = [torch.empty_like(t) for t in (*inputs[:3], inputs[1])]
    torch.ops.fastconv_cpu.topk_merge(*inputs, largest, *out)
    return tuple(out)
