from __future__ import annotations

import torch
from torch import Tensor


def topk_merge(
    values: Tensor,
    samples: Tensor,
    positions: Tensor,
    new_values: Tensor,
    new_samples: Tensor,
    new_positions: Tensor,
    largest: bool,
) -> tuple[Tensor, ...]:
    k = values.shape[1]
    value = torch.cat([values, new_values], 1)
    sample = torch.cat([samples, new_samples], 1)
    position = torch.cat([positions, new_positions], 1)
    empty = (sample < 0) | ~value.isfinite()
    value = torch.where(empty, torch.nan, value)
    sample = torch.where(empty, -1, sample)
    position = torch.where(empty, -1, position)
    key = torch.where(empty, torch.inf, -value if largest else value)
    order = position.argsort(dim=1, stable=True)  # least significant key first
    for rank in (sample, key, empty.to(torch.int8)):
        order = order.gather(1, rank.gather(1, order).argsort(dim=1, stable=True))
    order = order[:, :k]
    source = torch.where(empty, -1, torch.arange(value.shape[1], device=value.device))
    return tuple(t.gather(1, order) for t in (value, sample, position, source))
