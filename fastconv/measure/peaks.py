"""Several hits of one sample: its highest positions, no two nearer than half a receptive field."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fastconv.geometry import FieldMap
from fastconv.records import LayerInfo


def sample_peaks(
    value: Tensor, info: LayerInfo, count: int, *, largest: bool
) -> tuple[Tensor, Tensor]:
    """The best `count` positions of every (sample, channel), greedily, best first.

    A position is out once its box starts less than half a receptive field (in every dimension)
    from that of a better one. Ties go to the first position; non-finite values never count.

    Args:
        value: [N, C, *spatial].

    Returns:
        ([N, C, count] float32, [N, C, count] int64): values and flat positions; NaN and -1 where
        a (sample, channel) has fewer.
    """
    size = list(value.shape[2:])
    worst = -torch.inf if largest else torch.inf
    left = torch.where(value.isfinite(), value.float(), worst).flatten(2)  # [N, C, P]
    if left is value:
        left = left.clone()
    fields = info.fields if len(info.fields) == len(size) else [None] * len(size)
    near = [_near(f, length, value.device) for f, length in zip(fields, size, strict=True)]
    values, positions = [], []
    for _ in range(count):
        best = (left.argmax(-1) if largest else left.argmin(-1)).unsqueeze(-1)  # [N, C, 1]
        found = left.gather(-1, best)
        empty = found == worst
        values.append(torch.where(empty, torch.nan, found))
        positions.append(torch.where(empty, -1, best))
        left.view(value.shape).masked_fill_(_around(best.squeeze(-1), near, size), worst)
    return torch.cat(values, -1), torch.cat(positions, -1)


@cache
def _near(field: FieldMap | None, length: int, device: torch.device) -> Tensor:
    """[length, length] bool: boxes of two positions start less than half a field apart."""
    if field is None:
        return torch.ones((length, length), dtype=torch.bool, device=device)
    start = torch.from_numpy(field.box(np.arange(length))[0])
    return ((start[:, None] - start).abs() * 2 < field.size).to(device)


def _around(position: Tensor, near: list[Tensor], size: list[int]) -> Tensor:
    """[N, C, *spatial] bool: the positions too near to `position` [N, C], itself included."""
    around = torch.ones(
        (*position.shape, *(1,) * len(size)), dtype=torch.bool, device=position.device
    )
    rest = position
    for d, table in enumerate(near):
        stride = math.prod(size[d + 1 :])
        shape = (*position.shape, *(size[d] if e == d else 1 for e in range(len(size))))
        around = around & table[rest // stride].view(shape)
        rest = rest % stride
    return around
