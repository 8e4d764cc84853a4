"""Peaks without the whole activation: a kernel lists the values that could be among the hits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fastconv.format.result import LayerInfo
from fastconv.measure.hits import Hits
from fastconv.measure.peaks import Peaks, listed_peaks, sample_peaks
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.reduction import CandidateLists, Reduction

SHARE, LEAST, MOST = 64, 256, 4096  # a list holds 1/64 of the values of its channel, within limits
AT_ONCE = 2**22  # values whose transform is computed at once


def reduce_and_list(
    reduce: Callable[..., Reduction], hits: Hits, samples: Tensor, count: int
) -> tuple[Reduction, Peaks, Tensor]:
    """The reduction of a batch, and those of its peaks that could be among the hits.

    Args:
        reduce: runs a kernel that fills the lists it is given as `candidates`.
        samples: [N] int64, of the batch.

    Returns:
        The reduction; the peaks, none at all if a list was too short; and, where the batch is,
        whether that was so: then they must be taken from the whole activation.
    """
    positions = len(samples) * math.prod(hits.info.size)
    capacity = min(max(positions // SHARE, LEAST), MOST, positions)
    lists = CandidateLists.create(hits.limit(samples), capacity, largest=hits.largest)
    reduction = reduce(candidates=lists)
    values, places = listed_peaks(lists, len(samples), hits.info, count)
    short = (lists.counts > capacity).any()
    return reduction, (values.masked_fill(short, torch.nan), places), short


def whole_peaks(
    value: Tensor,
    info: LayerInfo,
    count: int,
    *,
    largest: bool,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str | None = None,
    backend: str = "auto",
) -> Peaks:
    """Those of activation(scale * value + shift), [N, C, *spatial], as `channel_reduce` has it.

    Values and lists must have the same bits, or ties would depend on which was used. So every
    value is reduced by itself.
    """
    if not (scale is None and shift is None and activation is None):
        rows = value.movedim(1, -1).reshape(-1, value.shape[1])  # [N * P, C]
        pieces = rows.split(max(AT_ONCE // value.shape[1], 1))
        reduce = partial(
            channel_reduce, scale=scale, shift=shift, activation=activation, backend=backend
        )
        value = torch.cat([reduce(piece).max for piece in pieces])
        value = value.view(-1, *info.size, info.channels).movedim(-1, 1)
    return sample_peaks(value, info, count, largest=largest)
