"""Bringing batches to where the model runs."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

AHEAD = 2  # batches that a GPU may have before it


class Feed:
    """Moves batches to a device, in the layout of the run.

    To a GPU a batch goes from pinned memory on a stream of its own, while the GPU still computes
    the one before: the host has only queued that, and comes here early. It never gets further
    ahead than AHEAD batches, or inputs would fill the memory of the GPU.
    """

    def __init__(self, place: torch.device, layout: torch.memory_format):
        self._place, self._layout = place, layout
        self._stream: Any = torch.cuda.Stream(place) if place.type == "cuda" else None
        self._queued: deque[Any] = deque()  # an event after the work of each batch

    def __call__(self, inputs: Tensor) -> Tensor:
        """A batch where the model runs; all that is queued so far is work on those before it."""
        if self._stream is None or inputs.is_cuda:
            return inputs.to(self._place).contiguous(memory_format=self._layout)
        compute = torch.cuda.current_stream(self._place)
        self._queued.append(compute.record_event())
        if len(self._queued) > AHEAD:
            self._queued.popleft().synchronize()
        with torch.cuda.stream(self._stream):
            moved = inputs.pin_memory().to(self._place, non_blocking=True)
            moved = moved.contiguous(memory_format=self._layout)
        compute.wait_stream(self._stream)
        moved.record_stream(compute)  # its memory is not used again before that stream is done
        return moved
