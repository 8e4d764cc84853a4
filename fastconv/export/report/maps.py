"""Activation maps, where the run kept them: some samples, shrunk, a byte a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.export.report.budget import Budget
from fastconv.export.report.chunks import PER_CHUNK, Chunks
from fastconv.store.reader import Layer

_SLICES = 6  # of a volume


def maps(layer: Layer, chunks: Chunks, budget: Budget) -> dict[str, Any] | None:
    """Add the maps of the first samples that were kept; None where none fit into the page.

    Returns:
        {"samples", "shape", "packs"}: for every `PER_CHUNK` filters level uint8 [F, n, *shape]
        between low [F] and high [F].
    """
    samples = [int(s) for s in layer.map_samples[: budget.map_samples]]
    if not samples:
        return None
    sides = [budget.map_side] * len(layer.info.size)
    if len(sides) == 3:
        sides[0] = min(sides[0], _SLICES)
    values = np.stack([shrink(layer.map(s), sides) for s in samples], axis=1)
    packs = [
        chunks.arrays(_levels(values[start : start + PER_CHUNK]))
        for start in range(0, len(values), PER_CHUNK)
    ]
    return {"samples": samples, "shape": list(values.shape[2:]), "packs": packs}


def shrink(values: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """[C, *spatial] with each axis at most so long, by the maximum over equal parts."""
    for axis, side in enumerate(sides, start=1):
        size = values.shape[axis]
        if size > side:
            values = np.maximum.reduceat(values, np.arange(side) * size // side, axis=axis)
    return values


def _levels(values: np.ndarray) -> dict[str, np.ndarray]:
    flat = values.reshape(len(values), -1)
    finite = np.isfinite(flat)
    some = finite.any(axis=1)
    low = np.where(some, np.where(finite, flat, np.inf).min(axis=1), 0)
    high = np.where(some, np.where(finite, flat, -np.inf).max(axis=1), 0)
    spread = np.where(high > low, high - low, 1)[:, None]
    share = (np.where(finite, flat, low[:, None]) - low[:, None]) / spread
    levels = np.rint(255 * share).astype(np.uint8).reshape(values.shape)
    return {"level": levels, "low": low.astype(np.float32), "high": high.astype(np.float32)}
