"""Pictures of hits: the receptive-field box, cropped from the input batch as the hit enters.

A picture has at most `patch_plan.MAX_POINTS` points: a larger box is drawn reduced by a whole
factor, each point the mean of factor^D pixels. Along a dimension where the box is at least as long
as the input, the picture shows the whole input instead; elsewhere it shows the box, zero outside
the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.format.patch_plan import PatchPlan
from fastconv.format.result import LayerInfo
from fastconv.geometry import input_boxes
from fastconv.ops.place_patches import place_patches
from fastconv.ops.shrink_colours import shrink_colours


@dataclass(frozen=True)
class Display:
    """How input values become 8-bit colours: (value - low) / (high - low), per input channel."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def choose(cls, probe: Tensor, input_dtype: str) -> Display | None:
        """From some samples [N, C, *spatial]; None unless images: 2-D with 1 or 3 channels."""
        channels = probe.shape[1]
        if probe.ndim != 4 or channels not in (1, 3):
            return None
        if input_dtype == "uint8":
            return cls((0.0,) * channels, (255.0,) * channels)
        values = probe if probe.is_floating_point() else probe.double()
        values = values.nan_to_num(0.0, 0.0, 0.0)
        planes = values.unbind(1)  # one by one: several times as fast as all at once
        low = torch.stack([plane.min() for plane in planes]).double()
        high = torch.stack([plane.max() for plane in planes]).double()
        if float(low.min()) >= 0 and float(high.max()) <= 1:
            return cls((0.0,) * channels, (1.0,) * channels)
        high = torch.where(high > low, high, low + 1)
        return cls(tuple(low.tolist()), tuple(high.tolist()))


@cache
def _low_and_scale(display: Display, device: torch.device) -> tuple[Tensor, Tensor]:
    """[C] float32 each: a colour is (value - low) * scale."""
    low, high = torch.tensor(display.low), torch.tensor(display.high)
    return low.to(device), (255 / (high - low)).to(device)


class Starts:
    """The first points of the pictures of flat output positions: one table per input dimension."""

    def __init__(self, info: LayerInfo, plan: PatchPlan):
        self._size = info.size
        corner = [np.arange(n) for n in info.size]
        ends = max([1, *info.size])
        positions = np.zeros((ends, len(info.size)), np.int64)
        for d, along in enumerate(corner):
            positions[: len(along), d] = along
        start = plan.start(input_boxes(info.fields, positions))  # [ends, D]
        self._tables = [torch.from_numpy(np.ascontiguousarray(column)) for column in start.T]

    def to(self, device: torch.device | str) -> None:
        self._tables = [table.to(device) for table in self._tables]

    def __call__(self, positions: Tensor) -> Tensor:
        """[M, D] int64 of flat positions [M]."""
        axes = []
        for size in reversed(self._size):
            axes.append(positions % size)
            positions = positions // size
        axes.reverse()
        axes += [torch.zeros_like(positions)] * (len(self._tables) - len(axes))
        return torch.stack([table[at] for table, at in zip(self._tables, axes, strict=False)], -1)


class PatchSource:
    """One input batch, from which pictures are cut; reduced copies are made once, when needed."""

    def __init__(self, inputs: Tensor, display: Display | None):
        self._inputs = inputs  # [N, C, *spatial]
        self._display = display
        self._reduced: dict[int, Tensor] = {}  # by factor

    def elsewhere(self, inputs: Tensor) -> PatchSource:
        return PatchSource(inputs, self._display)

    def empty(self, plan: PatchPlan, count: int) -> Tensor:
        """Room for pictures: uint8 [count, h, w, 3] of images, else float32 [count, C, *size]."""
        if self._display is not None:
            shape, dtype = (*plan.size, 3), torch.uint8
        else:
            shape, dtype = (self._inputs.shape[1], *plan.size), torch.float32
        return torch.zeros((count, *shape), dtype=dtype, device=self._inputs.device)

    def place(
        self, plan: PatchPlan, rows: Tensor, start: Tensor, slot: Tensor, pictures: Tensor
    ) -> None:
        """Cut the picture of rows[m] at start[m] [D] into pictures[slot[m]], where slot[m] >= 0."""
        if plan.factor not in self._reduced:
            self._reduced[plan.factor] = self._reduce(plan.factor)
        source = self._reduced[plan.factor]
        if self._display is None:
            place_patches(source, rows, start, slot, pictures)
        elif source.dtype != torch.uint8:  # the full-size input: colour the pictures, not all of it
            low, scale = _low_and_scale(self._display, source.device)
            place_patches(source, rows, start, slot, pictures, low=low, scale=scale)
        else:  # a row of w pixels is 3 w bytes: cropped as such, nothing is transposed
            lines = source.flatten(2).unsqueeze(1)  # [N, 1, h, 3 w]
            start = torch.stack([start[:, 0], 3 * start[:, 1]], -1)
            place_patches(lines, rows, start, slot, pictures.flatten(2).unsqueeze(1))

    def cut(self, plan: PatchPlan, rows: Tensor, start: np.ndarray) -> Tensor:
        """Pictures of rows [M] at start [M, D], on the CPU."""
        device = self._inputs.device
        pictures = self.empty(plan, len(rows))
        at = torch.from_numpy(np.ascontiguousarray(start)).to(device)
        self.place(plan, rows.to(device), at, torch.arange(len(rows), device=device), pictures)
        return pictures.cpu()

    def whole(self, factor: int) -> np.ndarray:
        """All samples, reduced by a whole factor: uint8 [N, h, w, 3]; of images alone."""
        assert self._display is not None
        low, scale = _low_and_scale(self._display, self._inputs.device)
        return shrink_colours(self._inputs.float(), factor, low, scale).cpu().numpy()

    def _reduce(self, factor: int) -> Tensor:
        """The batch reduced by `factor`: [N, h, w, 3] uint8 of images, else as the input."""
        values = self._inputs.float()
        if factor == 1:
            return values
        if self._display is not None:
            low, scale = _low_and_scale(self._display, values.device)
            return shrink_colours(values, factor, low, scale)
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[values.ndim - 3]
        return pool(values, factor, ceil_mode=True, count_include_pad=False)
