"""The samples of one forward, and what measuring their layers leaves with them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.capture.batch import first_tensor, map_tensors, picture
from fastconv.measure.patches import PatchSource
from fastconv.run.transfer import read_later


class MeasuredBatch:
    """Some samples of a unit on their way through the network.

    Attributes:
        inputs: [n, C, *spatial], where the model runs; or several inputs of which that is one.
        first: the lowest sample.
        rows: [n] int64, the sample of each row, where the model runs.
        source: where the pictures of hits are cut from.
        mapped: the rows whose activation maps are kept.
        sample_rows: maximum and mean [n, C] of every sample, by layer, where they are kept.
        overflowed: (layer, name of its hits) that candidate lists were made for, and whether one
            was too short (a device tells later).
        redo: in a second forward, the hits by layer whose lists were too short; None in the first.
        scores: the model's class scores [n, K], where outcomes are kept.
    """

    def __init__(self, samples: list[int], inputs: Any, source: PatchSource, mapped: np.ndarray):
        self.inputs, self.source, self.mapped = inputs, source, mapped
        self.first = samples[0]
        device = first_tensor(inputs).device
        rows = torch.tensor(samples, dtype=torch.int64, pin_memory=device.type == "cuda")
        self.rows = rows.to(device, non_blocking=True)
        self.sample_rows: dict[int, tuple[Tensor, Tensor]] = {}
        self.overflowed: dict[tuple[int, str], Tensor] = {}
        self.redo: dict[int, list[str]] | None = None
        self.scores: Tensor | None = None
        self._answer: Callable[[], list[Any]] = list

    def elsewhere(self, inputs: Any, rows: Tensor) -> MeasuredBatch:
        """A batch of this shape with inputs and sample numbers in other memory."""
        other = copy.copy(self)
        other.inputs, other.rows = inputs, rows
        other.source = self.source.elsewhere(picture(inputs))
        return other

    def forget_inputs(self) -> None:
        """Free the memory of the inputs: no second forward will need them."""
        self.inputs = map_tensors(self.inputs, lambda t: t.new_empty((0, *t.shape[1:])))
        self.source = self.source.elsewhere(picture(self.inputs))

    def ask(self) -> None:
        """Start to read back which lists were too short."""
        if self.overflowed:
            self._answer = read_later(torch.stack([*self.overflowed.values()]))

    def needs_second_forward(self) -> bool:
        """Wait for the answer; sets `redo`."""
        self.redo = {}
        for (layer, name), overflowed in zip(self.overflowed, self._answer(), strict=True):
            if overflowed:
                self.redo.setdefault(layer, []).append(name)
        return bool(self.redo)
