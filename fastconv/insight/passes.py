"""Reading a data set once more, batch by batch, where the analyses need the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastconv.capture import CaptureTarget, plan_capture
from fastconv.data.samples import Samples, prepared
from fastconv.errors import InputError


def batches(
    source: Samples, place: torch.device, batch_size: int, num_workers: int = 0
) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
    """Sample indices, inputs [n, C, ...] where the model runs, and labels [n] or None."""
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, got {batch_size}")
    count = len(source)
    units = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
    for unit, (x, labels) in zip(units, source.batches(units, num_workers), strict=True):
        yield source.kept(unit), prepared(x).to(place), labels


def plan(
    model: nn.Module, source: Samples, place: torch.device, layers: Any, stage: str = "conv"
) -> list[CaptureTarget]:
    """The layers to look at, found on the first sample of a data set."""
    example = next(iter(source.batches([[source.first()]])))[0]
    return plan_capture(model, prepared(example).to(place), layers, stage)


def check_labels(labels: Any, count: int) -> np.ndarray:
    """Labels [N] int64.

    Raises:
        InputError: not one integer a sample.
    """
    found = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (count,):
        raise InputError(f"labels must be [{count}], one a sample, got {list(found.shape)}")
    if found.dtype.kind not in "iub":
        raise InputError(f"labels must be integers, the index of a class, got {found.dtype}")
    return found.astype(np.int64)


def check_filters(
    targets: Sequence[CaptureTarget], filters: dict[str, list[int]]
) -> dict[str, list[int]]:
    """The filters of each layer, in forward order of the layers.

    Raises:
        InputError: a filter that a layer does not have, or none at all.
    """
    found = {}
    for target in targets:
        name, channels = target.info.name, target.info.channels
        wrong = [f for f in filters[name] if not 0 <= f < channels]
        if wrong:
            raise InputError(f"{name} has filters 0 to {channels - 1}, got {wrong[0]}")
        if not filters[name]:
            raise InputError(f"no filters of {name} are named; give a list such as [0, 3]")
        found[name] = filters[name]
    return found
