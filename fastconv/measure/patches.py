"""Pictures of hits: the receptive-field box, cropped from the input batch as the hit enters.

A picture has at most MAX_POINTS points: a larger box is drawn reduced by a whole factor, each point
the mean of factor^D pixels. Along a dimension where the box is at least as long as the input, the
picture shows the whole input instead; elsewhere it shows the box, zero outside the input.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.ops.gather_patches import gather_patches
from fastconv.records import LayerInfo

MAX_POINTS = 48 * 48


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
        values = probe.double().nan_to_num(0.0, 0.0, 0.0)
        low, high = values.amin((0, 2, 3)), values.amax((0, 2, 3))
        if float(low.min()) >= 0 and float(high.max()) <= 1:
            return cls((0.0,) * channels, (1.0,) * channels)
        high = torch.where(high > low, high, low + 1)
        return cls(tuple(low.tolist()), tuple(high.tolist()))

    def colours(self, values: Tensor) -> Tensor:
        """[N, 3, h, w] uint8 of input values [N, 1 or 3, h, w]; 0 where not finite."""
        low = values.new_tensor(self.low).view(1, -1, 1, 1)
        scale = 255 / (values.new_tensor(self.high).view(1, -1, 1, 1) - low)
        scaled = (values - low).mul_(scale).nan_to_num_(0.0).clamp_(0, 255).round_()
        return scaled.to(torch.uint8).expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class PatchPlan:
    """Where the pictures of one layer come from."""

    factor: int
    size: tuple[int, ...]  # points per spatial dimension
    whole: tuple[bool, ...]  # the picture shows the whole input along this dimension

    @classmethod
    def create(cls, info: LayerInfo, input_size: tuple[int, ...]) -> PatchPlan:
        whole = tuple(
            info.status == "global" or f.size >= n
            for f, n in zip(info.fields, input_size, strict=True)
        )
        pixels = [
            n if all_of_it else f.size
            for f, n, all_of_it in zip(info.fields, input_size, whole, strict=True)
        ]
        for factor in itertools.count(1):
            size = tuple(-(-n // factor) for n in pixels)
            if np.prod(size) <= MAX_POINTS:
                return cls(factor, size, whole)
        raise AssertionError  # count() does not end

    def start(self, box: np.ndarray) -> np.ndarray:
        """First points of the pictures of boxes [M, D, 2], on the grid reduced by `factor`."""
        first = np.where(self.whole, 0, box[..., 0])
        return np.floor_divide(first, self.factor)


class PatchSource:
    """One input batch, from which pictures are cut; reduced copies are made once, when needed."""

    def __init__(self, inputs: Tensor, display: Display | None):
        self._inputs = inputs  # [N, C, *spatial]
        self._display = display
        self._reduced: dict[int, Tensor] = {}  # by factor

    def cut(self, plan: PatchPlan, rows: Tensor, start: np.ndarray) -> Tensor:
        """Pictures of rows [M] at start [M, D]: uint8 [M, h, w, 3] of images, else float32."""
        if plan.factor not in self._reduced:
            self._reduced[plan.factor] = self._reduce(plan.factor)
        source = self._reduced[plan.factor]
        rows = rows.to(source.device)
        at = torch.from_numpy(np.ascontiguousarray(start)).to(source.device)
        if self._display is None:
            return gather_patches(source, rows, at, plan.size).cpu()
        if source.dtype != torch.uint8:  # the full-size input: convert the pictures, not all of it
            pictures = self._display.colours(gather_patches(source, rows, at, plan.size))
            return pictures.permute(0, 2, 3, 1).cpu()
        # a row of w pixels is 3 w bytes: cropped as such, nothing is transposed
        height, width = plan.size
        lines = source.flatten(2).unsqueeze(1)  # [N, 1, h, 3 w]
        pictures = gather_patches(lines, rows, at * at.new_tensor([1, 3]), (height, 3 * width))
        return pictures.view(-1, height, width, 3).cpu()

    def _reduce(self, factor: int) -> Tensor:
        """The batch reduced by `factor`: [N, h, w, 3] uint8 of images, else as the input."""
        values = self._inputs.float()
        if factor == 1:
            return values
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[values.ndim - 3]
        values = pool(values, factor, ceil_mode=True, count_include_pad=False)
        if self._display is None:
            return values
        return self._display.colours(values).permute(0, 2, 3, 1).contiguous()
