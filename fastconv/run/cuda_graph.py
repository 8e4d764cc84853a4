"""The work on a batch from a CUDA graph, where launching it kernel by kernel takes longer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastconv.run.batch import MeasuredBatch

WARM = 2  # batches before the capture: they compile kernels and fill tables


class Replay:
    """Does `work(batch)`; full batches from a graph of it, once that has been captured.

    The graph reads inputs and sample numbers from buffers of its own, and updates the running
    states where they lie: when they have moved, as they do when a part is saved, it is captured
    anew. Short batches, and all of them if the capture fails, are worked on as they come.
    """

    def __init__(
        self,
        work: Callable[[MeasuredBatch], None],
        states: Callable[[], list[Tensor]],  # what the work updates
        size: int,  # samples of a full batch
    ):
        self._work, self._states, self._size = work, states, size
        self._seen = 0
        self._graph: Any = None
        self._places: list[int] = []  # of the states when the graph was captured

    def __call__(self, batch: MeasuredBatch) -> None:
        """Run `work(batch)`, or replay the graph of it."""
        several = not isinstance(batch.inputs, Tensor)
        if several or len(batch.inputs) != self._size or not self._ready(batch):
            self._work(batch)
            return
        self._inputs.copy_(batch.inputs)
        self._rows.copy_(batch.rows)
        self._graph.replay()

    def _ready(self, batch: MeasuredBatch) -> bool:
        self._seen += 1
        if self._seen <= WARM:
            return False
        states = self._states()
        places = [state.data_ptr() for state in states]
        if places != self._places:
            self._graph = None
            if any(state.device != batch.inputs.device for state in states):
                return False  # this batch brings them back
            try:
                self._capture(batch)
            except RuntimeError as error:
                self._size = 0  # no batch is full any more
                reason = str(error).splitlines()[0]
                warnings.warn(f"without a CUDA graph: {reason}", stacklevel=2)
                return False
            self._places = places
        return True

    def _capture(self, batch: MeasuredBatch) -> None:
        """Record the work on buffers; nothing of it is done yet."""
        self._inputs, self._rows = batch.inputs.clone(), batch.rows.clone()
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(batch.inputs.device)  # torch's own is of the current device
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._work(batch.elsewhere(self._inputs, self._rows))
        self._graph = graph
