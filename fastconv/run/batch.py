"""The samples of one forward while their layers are measured."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fastconv.measure.patches import PatchSource
from fastconv.run.transfer import read_later


class Batch:
    """Some samples of a unit, and the forward that hands their layers over.

    Where lists of a layer turn out to have been too short, which a device tells later, the
    forward runs again: for these layers, and for their hits alone.
    """

    def __init__(
        self,
        samples: list[int],
        source: PatchSource,
        mapped: np.ndarray,
        device: torch.device,
        forward: Callable[[Batch], None],
    ):
        self.first, self.source, self.mapped = samples[0], source, mapped
        rows = torch.tensor(samples, dtype=torch.int64, pin_memory=device.type == "cuda")
        self.rows = rows.to(device, non_blocking=True)  # the sample of each row
        self.short: dict[int, Tensor] = {}  # layers that made lists: whether one was too short
        self.again: set[int] | None = None  # the layers to measure in a second forward
        self._forward = forward

    def elsewhere(self, rows: Tensor, inputs: Tensor) -> Batch:
        """A batch of this shape with sample numbers and inputs in other memory."""
        other = copy.copy(self)
        other.rows, other.source = rows, self.source.elsewhere(inputs)
        return other

    def run(self) -> None:
        """Queue the forward, and the answer to whether another is needed."""
        self._forward(self)
        self._short = read_later(torch.stack([*self.short.values()])) if self.short else list

    def settle(self) -> None:
        """Run the forward again if lists were too short."""
        self.again = {i for i, short in zip(self.short, self._short(), strict=True) if short}
        if self.again:
            self._forward(self)


class Spread:
    """Puts the rows of the samples that were kept where they belong in their unit."""

    def __init__(self, unit: range, kept: list[int]):
        self._size, self._at = len(unit), np.asarray(kept, np.int64) - unit.start

    def __call__(self, rows: np.ndarray, missing: float) -> np.ndarray:
        if len(self._at) == self._size:
            return rows
        full = np.full((self._size, *rows.shape[1:]), missing, rows.dtype)
        full[self._at] = rows
        return full
