"""Several hits of one sample: its highest positions, no two nearer than half a receptive field."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fastconv.format.result import LayerInfo
from fastconv.geometry import FieldMap
from fastconv.reduction import CandidateLists

Peaks = tuple[Tensor, Tensor]  # values and positions [N, C, count], best first; NaN and -1: none

_LAST = 2**31 - 1  # positions are below it
_NO_KEY = -(2**63)


def sample_peaks(value: Tensor, info: LayerInfo, count: int, *, largest: bool) -> Peaks:
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
    near = _near_tables(info, size, value.device)
    values, positions = [], []
    for _ in range(count):
        best = (left.argmax(-1) if largest else left.argmin(-1)).unsqueeze(-1)  # [N, C, 1]
        found = left.gather(-1, best)
        empty = found == worst
        values.append(torch.where(empty, torch.nan, found))
        positions.append(torch.where(empty, -1, best))
        left.view(value.shape).masked_fill_(_around(best.squeeze(-1), near, size), worst)
    return torch.cat(values, -1), torch.cat(positions, -1)


def listed_peaks(lists: CandidateLists, samples: int, info: LayerInfo, count: int) -> Peaks:
    """`sample_peaks` from lists of the values that reach a threshold, which are far fewer.

    Those of its peaks that reach the threshold, in the same order: a better position is on the
    list whenever one that it rules out is. The lists must be complete.
    """
    positions = math.prod(info.size)
    near = _near_tables(info, list(info.size), lists.values.device)
    number = torch.arange(lists.values.shape[1], device=lists.values.device)
    listed = number < lists.counts[:, None]  # [C, capacity]
    place = torch.where(listed, lists.places, samples * positions)  # others: a row of their own
    row, position = place // positions, place % positions
    key = _keys(lists.values, position, largest=lists.largest)
    key = torch.where(listed, key, _NO_KEY)
    values, places = [], []
    for _ in range(count):
        best = torch.full((len(key), samples + 1), _NO_KEY, device=key.device)
        best = best.scatter_reduce(1, row, key, "amax")  # [C, N + 1]
        at = _LAST - (best & _LAST)
        values.append(torch.where(best == _NO_KEY, torch.nan, _value(best, largest=lists.largest)))
        places.append(torch.where(best == _NO_KEY, -1, at))
        gone = torch.ones_like(listed)
        for d, table in enumerate(near):
            stride = math.prod(info.size[d + 1 :])
            axes = [p // stride % info.size[d] for p in (position, at.gather(1, row))]
            gone &= table[axes[0], axes[1]]
        key = torch.where(gone, _NO_KEY, key)
    value, at = (torch.stack(t, -1)[:, :samples].transpose(0, 1) for t in (values, places))
    return value, at


def _keys(values: Tensor, position: Tensor, *, largest: bool) -> Tensor:
    """int64 in the order of the peaks: a better value, then a lower position, is larger."""
    bits = ((values if largest else -values) + 0.0).view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered << 31) + (_LAST - position)


def _value(key: Tensor, *, largest: bool) -> Tensor:
    """The value of a key."""
    ordered = key >> 31
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(torch.int32)
    values = bits.view(torch.float32)
    return values if largest else 0.0 - values


def _near_tables(info: LayerInfo, size: list[int], device: torch.device) -> list[Tensor]:
    fields = info.fields if len(info.fields) == len(size) else [None] * len(size)
    return [_near(f, length, device) for f, length in zip(fields, size, strict=True)]


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
