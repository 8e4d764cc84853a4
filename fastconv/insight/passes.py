"""A model and a data set read once more, where an analysis needs both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastconv.capture import CaptureTarget, Forward, capture_forward, probe
from fastconv.data import Samples, hinted, open_data
from fastconv.errors import InputError
from fastconv.insight.labels import vectors
from fastconv.insight.replay import KeptOutput
from fastconv.run.transfer import Transfer, on_device


@dataclass(frozen=True)
class Pass:
    """What it takes to run a model over a data set and look at some of its layers."""

    source: Samples
    network: KeptOutput
    targets: list[CaptureTarget]
    transfer: Transfer
    batch_size: int
    num_workers: int

    def batches(
        self, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], Any, Tensor | None]]:
        """Sample indices, inputs where the model runs, and labels [n] or None."""
        rows = range(len(self.source)) if chosen is None else chosen
        units = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        read = self.source.batches(units, self.num_workers)
        for unit, (x, labels) in zip(units, read, strict=True):
            yield self.source.kept(unit), self.transfer(x), labels

    def run(self, take: Callable[[int, Tensor, list[int]], None]) -> None:
        """One forward over all samples; `take(i, output of targets[i], sample indices)`."""
        for rows, x, _ in self.batches():

            def hand_over(i: int, output: Tensor, rows: list[int] = rows) -> None:
                take(i, output, rows)

            capture_forward(self.network, self.targets, x, hand_over)


@contextmanager
def passing(
    model: nn.Module,
    data: Any,
    layers: Any,
    stage: str = "conv",
    *,
    batch_size: int,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    forward: Forward | None = None,
) -> Iterator[Pass]:
    """A model on its device, with the layers to look at found on the first sample.

    Raises:
        LayerError: layers that do not exist.
        InputError: data or a batch size that cannot be used.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, got {batch_size}")
    source = open_data(data)
    with on_device(model, device) as place:
        kinds = (p.dtype for p in model.parameters() if p.is_floating_point())
        dtype = next(kinds, None)
        example = next(iter(source.batches([[source.first()]])))[0]
        network = KeptOutput(model, forward)
        with hinted(source, model):
            found = probe(network, Transfer(place, dtype=dtype)(example), layers, stage)
        transfer = Transfer(place, found.layout, dtype)
        yield Pass(source, network, found.targets, transfer, batch_size, num_workers)


def modules_only(targets: Sequence[CaptureTarget]) -> None:
    """Refuse convolutions that no module computes: their output cannot be reached by a hook."""
    for target in targets:
        if target.function or target.instances > 1:
            why = "is no module of its own" if target.function else "folds samples into the batch"
            raise InputError(f"{target.info.name} {why}, which this cannot handle; leave it out")


def check_labels(labels: Any, count: int) -> np.ndarray:
    """Labels [N], or of several a sample [N, K], int64.

    Raises:
        InputError: not one integer a sample, or not 0 and 1 for each class.
    """
    found = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if found.ndim == 2 and len(found) == count and found.shape[1] > 1:
        return vectors(found)
    if found.shape != (count,):
        raise InputError(f"labels must be [{count}], one a sample, got {list(found.shape)}")
    if found.dtype.kind not in "iub":
        raise InputError(f"labels must be integers, the index of a class, got {found.dtype}")
    return found.astype(np.int64)
