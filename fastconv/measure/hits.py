"""The running top-k of one layer, with the pictures of its hits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastconv.geometry import input_boxes
from fastconv.measure.patches import PatchPlan, PatchSource
from fastconv.ops.topk_merge import empty_topk, topk_merge
from fastconv.records import LayerInfo


class Hits:
    """Exact, order-free top-k of every channel of a layer.

    Entries are ordered by value, then the lower sample, then the lower flat position; the best
    k of any set of candidates are the same however the candidates arrive.
    """

    def __init__(self, info: LayerInfo, k: int, *, largest: bool, plan: PatchPlan | None):
        self.info = info
        self.k = k
        self.largest = largest
        self.plan = plan
        self.values, self.samples, self.positions, _ = empty_topk(info.channels, k)
        self._pictures: Tensor | None = None  # [C, slot, ...]
        self._slots = torch.arange(k).expand(info.channels, k)  # of the picture of each entry

    def update(
        self, values: Tensor, samples: Tensor, positions: Tensor, source: PatchSource
    ) -> None:
        """Take the candidates of one batch.

        Args:
            values, positions: [N, C, R] float32 and int64, R candidates of every sample.
            samples: [N] int64.
            source: the batch whose row n is sample samples[n].
        """
        _, channels, per_sample = values.shape
        flat = [
            t.permute(1, 0, 2).reshape(channels, -1).contiguous()  # [C, N * R]
            for t in (values, samples.view(-1, 1, 1).expand(values.shape), positions)
        ]
        origin = self._merge(*flat)
        if self.plan is not None:
            entered = origin >= self.k
            rows = (origin[entered] - self.k) // per_sample
            self._place(origin, self._cut(entered, rows, source))

    def merge(
        self, values: Tensor, samples: Tensor, positions: Tensor, pictures: Tensor | None
    ) -> None:
        """Take stored entries: [C, m] each, with the pictures of the filled ones."""
        origin = self._merge(values, samples, positions)
        if self.plan is not None and pictures is not None:
            filled = samples >= 0
            number = filled.flatten().cumsum(0).view_as(samples) - 1  # of the picture of an entry
            entered = origin >= self.k
            channel = entered.nonzero()[:, 0]
            chosen = number[channel, origin[entered] - self.k]
            self._place(origin, pictures[chosen])

    def pictures(self) -> Tensor | None:
        """[C, k, ...] in the order of the entries; zero where there is no hit."""
        if self._pictures is None:
            return None
        row = torch.arange(self.info.channels)[:, None] * self.k + self._slots
        ordered = self._pictures.flatten(0, 1).index_select(0, row.flatten())
        ordered = ordered.view_as(self._pictures)
        ordered[self.samples < 0] = 0
        return ordered

    def _merge(self, values: Tensor, samples: Tensor, positions: Tensor) -> Tensor:
        merged = topk_merge(
            self.values,
            self.samples,
            self.positions,
            values,
            samples,
            positions,
            largest=self.largest,
        )
        self.values, self.samples, self.positions, origin = merged
        return origin  # [C, k]

    def _cut(self, entered: Tensor, rows: Tensor, source: PatchSource) -> Tensor:
        assert self.plan is not None
        box = boxes(self.info, self.positions[entered].numpy())
        return source.cut(self.plan, rows, self.plan.start(box))

    def _place(self, origin: Tensor, new: Tensor) -> None:
        """Put the pictures of entered hits, in the order of the entries, where gone ones were."""
        entered = origin >= self.k
        if self._pictures is None:
            self._pictures = new.new_zeros((self.info.channels, self.k, *new.shape[1:]))
        held = self._slots.gather(1, origin.clamp(0, self.k - 1))  # of the entries that stay
        stays = (origin >= 0) & ~entered
        taken = torch.zeros(stays.shape, dtype=torch.int64).scatter_add(1, held, stays.long())
        free = taken.argsort(dim=1, stable=True)  # the free slots come first
        nth = (~stays).cumsum(1) - 1  # entries without a slot take the free ones in turn
        self._slots = torch.where(stays, held, free.gather(1, nth.clamp_min(0)))
        row = entered.nonzero()[:, 0] * self.k + self._slots[entered]
        # as numpy, which copies whole pictures; torch would go by their bytes
        self._pictures.flatten(0, 1).numpy()[row.numpy()] = new.numpy()


def boxes(info: LayerInfo, positions: np.ndarray) -> np.ndarray:
    """Receptive-field boxes [..., D_in, 2] of flat positions [...]."""
    if not info.size:  # no position to speak of: every field is the whole input
        return input_boxes(info.fields, np.empty((*positions.shape, 0), dtype=np.int64))
    return input_boxes(info.fields, np.stack(np.unravel_index(positions, info.size), -1))
