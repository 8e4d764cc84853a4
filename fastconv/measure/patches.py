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
        """Pictures of rows [M] at start [M, D]: uint8 [M, 3, h, w] of images, else float32."""
        if plan.factor not in self._reduced:
            self._reduced[plan.factor] = self._reduce(plan.factor)
        source = self._reduced[plan.factor]
        at = torch.from_numpy(np.ascontiguousarray(start)).to(source.device)
        pictures = gather_patches(source, rows.to(source.device), at, plan.size).cpu()
        return pictures if self._display is None else pictures.expand(-1, 3, -1, -1)

    def _reduce(self, factor: int) -> Tensor:
        values = self._inputs.float()
        if factor > 1:
            pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[values.ndim - 3]
            values = pool(values, factor, ceil_mode=True, count_include_pad=False)
        if self._display is None:
            return values.contiguous()
        shape = (1, -1) + (1,) * (values.ndim - 2)
        low = values.new_tensor(self._display.low).view(shape)
        high = values.new_tensor(self._display.high).view(shape)
        scaled = ((values - low) / (high - low)).nan_to_num(0.0).clamp(0, 1)
        return (scaled * 255).round().to(torch.uint8).contiguous()
