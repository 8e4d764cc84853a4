"""The running top-k of one layer, with the pictures of its hits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastconv.format.result import LayerInfo, Pictures
from fastconv.geometry import input_boxes
from fastconv.measure.patches import PatchPlan, PatchSource, Starts
from fastconv.ops.topk_merge import empty_topk, topk_merge


class Hits:
    """Exact, order-free top-k of every channel of a layer, on the device of its outputs.

    Entries are ordered by value, then the lower sample, then the lower flat position; the best
    k of any set of candidates are the same however the candidates arrive. Taking a batch reads
    nothing back: which candidates enter is known on the device only.
    """

    def __init__(self, info: LayerInfo, k: int, *, largest: bool, plan: PatchPlan | None):
        self.info = info
        self.k = k
        self.largest = largest
        self.plan = plan
        self.values, self.samples, self.positions, _ = empty_topk(info.channels, k)
        self.seen = 0  # samples whose candidates came with batches
        self._pictures: Tensor | None = None  # [C * k, ...]: slots 0 to k - 1 of every channel
        self._slots = torch.arange(k).repeat(info.channels, 1)  # of the picture of each entry
        self._starts = None if plan is None else Starts(info, plan)

    def to(self, device: torch.device | str) -> None:
        """Move everything, if it is not there already."""
        if self.values.device == torch.device(device):
            return
        for name in ("values", "samples", "positions", "_slots", "_pictures"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(device))
        if self._starts is not None:
            self._starts.to(device)

    def tensors(self) -> list[Tensor]:
        """All that batches change, in place."""
        found = [self.values, self.samples, self.positions, self._slots]
        return found if self._pictures is None else [*found, self._pictures]

    def limit(self, samples: Tensor) -> Tensor:
        """[C]: what a candidate of these samples must reach to be among the best k; never NaN.

        A value equal to the last of the best enters only with a lower sample. So a filter whose
        best are all equal, as those of dead filters are, takes no more of them.
        """
        self.to(samples.device)
        side = torch.inf if self.largest else -torch.inf
        last, sample = self.values[:, -1], self.samples[:, -1]
        beyond = torch.nextafter(last, torch.full_like(last, side))
        limit = torch.where(sample < samples.min(), beyond, last)
        return torch.where(sample < 0, -side, limit)

    def update(
        self, values: Tensor, samples: Tensor, positions: Tensor, source: PatchSource
    ) -> None:
        """Take the candidates of one batch.

        Args:
            values, positions: [N, C, R] float32 and int64, R candidates of every sample.
            samples: [N] int64.
            source: the batch whose row n is sample samples[n].
        """
        self.to(values.device)
        self.seen += len(values)
        _, channels, per_sample = values.shape
        samples = samples.to(values.device)
        flat = [
            t.permute(1, 0, 2).reshape(channels, -1).contiguous()  # [C, N * R]
            for t in (values, samples.view(-1, 1, 1).expand(values.shape), positions)
        ]
        origin = self._merge(*flat)
        if self.plan is not None and self._starts is not None:
            slot = self._assign(origin)
            rows = (origin.flatten() - self.k) // per_sample
            if self._pictures is None:
                self._pictures = source.empty(self.plan, slot.numel())
            start = self._starts(self.positions.flatten())
            source.place(self.plan, rows, start, slot.flatten(), self._pictures)

    def merge(
        self, values: Tensor, samples: Tensor, positions: Tensor, pictures: Tensor | None
    ) -> None:
        """Take stored entries, on the CPU: [C, m] each, with the pictures of the filled ones."""
        self.to("cpu")
        origin = self._merge(values, samples, positions)
        if self.plan is not None and pictures is not None:
            slot = self._assign(origin)
            if self._pictures is None:
                self._pictures = pictures.new_zeros((slot.numel(), *pictures.shape[1:]))
            filled = samples >= 0
            number = filled.flatten().cumsum(0).view_as(samples) - 1  # of the picture of an entry
            entered = slot >= 0
            channel = entered.nonzero()[:, 0]
            chosen = number[channel, origin[entered] - self.k]
            # as numpy, which copies whole pictures; torch would go by their bytes
            taken = pictures.index_select(0, chosen).numpy()
            self._pictures.numpy()[slot[entered].numpy()] = taken

    def pictures(self) -> Pictures | None:
        """[C, k, ...] in the order of the entries, until the next are taken."""
        if self._pictures is None:
            return None
        places = torch.where(self.samples < 0, -1, self._numbers(self._slots))
        return Pictures(self._pictures.cpu().numpy(), places.cpu().numpy())

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
        for kept, best in zip((self.values, self.samples, self.positions), merged[:3], strict=True):
            kept.copy_(best)  # in place: a CUDA graph knows where it is
        return merged.source  # [C, k]

    def _assign(self, origin: Tensor) -> Tensor:
        """Give entries that entered the slots of those that left; [C, k], -1 for all others.

        The slots of a channel are always a permutation, so that every entry has one.
        """
        entered = origin >= self.k
        stays = (origin >= 0) & ~entered
        held = self._slots.gather(1, origin.clamp(0, self.k - 1))  # of the entries that stay
        taken = held.new_zeros((len(held), self.k + 1))  # the last one: of no slot
        taken.scatter_(1, torch.where(stays, held, self.k), 1)
        taken = taken[:, : self.k] > 0
        order = (~taken).cumsum(1) - 1  # of the free slots
        free = held.new_zeros((len(held), self.k + 1))
        number = torch.arange(self.k, device=held.device).expand_as(held)
        free.scatter_(1, torch.where(taken, self.k, order), number)
        nth = (~stays).cumsum(1) - 1  # entries without a slot take the free ones in turn
        self._slots.copy_(torch.where(stays, held, free.gather(1, nth.clamp_min(0))))
        return torch.where(entered, self._numbers(self._slots), -1)

    def _numbers(self, slots: Tensor) -> Tensor:
        """Slots [C, k] counted over all channels."""
        return slots + self.k * torch.arange(len(slots), device=slots.device)[:, None]


def boxes(info: LayerInfo, positions: np.ndarray) -> np.ndarray:
    """Receptive-field boxes [..., D_in, 2] of flat positions [...]."""
    if not info.size:  # no position to speak of: every field is the whole input
        return input_boxes(info.fields, np.empty((*positions.shape, 0), dtype=np.int64))
    return input_boxes(info.fields, np.stack(np.unravel_index(positions, info.size), -1))
