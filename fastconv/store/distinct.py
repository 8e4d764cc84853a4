"""Which hits of a layer show the same part of the same sample: their picture is kept once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastconv.format.patch_plan import PatchPlan


class DistinctHits(NamedTuple):
    """The hits of a layer whose pictures differ, in the order in which they are first seen."""

    row: np.ndarray  # [C, k] int32: the picture of each hit, -1 of empty slots
    filter: np.ndarray  # [M]: a hit with each picture
    rank: np.ndarray  # [M]
    sample: np.ndarray  # [M]
    start: np.ndarray  # [M, D]: first point in the input reduced as the plan says, or first pixel


def distinct_hits(topk: Mapping[str, np.ndarray], plan: PatchPlan | None) -> DistinctHits:
    """Find the hits whose pictures differ: by sample and place."""
    sample, box = np.asarray(topk["sample"]), np.asarray(topk["box"])
    start = box[..., 0] if plan is None else plan.start(box)
    filters, ranks = np.nonzero(sample >= 0)
    keys = np.column_stack([sample[filters, ranks], start[filters, ranks]])  # [m, 1 + D]
    _, first, inverse = np.unique(_numbers(keys), return_index=True, return_inverse=True)
    order = np.argsort(first)  # of the distinct ones, as they are first seen
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    row = np.full(sample.shape, -1, np.int32)
    row[filters, ranks] = place[inverse]
    chosen = first[order]
    return DistinctHits(
        row, filters[chosen], ranks[chosen], keys[chosen, 0], keys[chosen, 1:].astype(np.int64)
    )


def _numbers(keys: np.ndarray) -> np.ndarray:
    """One number for each row of integers [m, K], equal where the rows are."""
    number, size = np.zeros(len(keys), np.int64), 1  # size: more than any number
    for column in keys.T if len(keys) else ():
        column, width = column - column.min(), int(np.ptp(column)) + 1
        if size * width > 2**63:  # renumbered: the product stays below the square of their count
            number, column = (np.unique(c, return_inverse=True)[1] for c in (number, column))
            size = width = len(keys)
        number, size = number * width + column, size * width
    return number
