"""Where maps lie in the input, and which of them are worth a look."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastconv.export.summary import most_selective
from fastconv.geometry import FieldMap
from fastconv.store.reader import Layer, Run

_CANDIDATES = 64  # kept maps that are looked through for the strongest


class ChosenMaps(NamedTuple):
    """Maps of some filters on the samples that excite them most."""

    filters: np.ndarray  # [F] int64
    samples: np.ndarray  # [S] int64, the strongest first
    values: np.ndarray  # [F, S, *spatial] float32


def chosen_maps(layer: Layer, filters: int, samples: int) -> ChosenMaps | None:
    """Kept maps of the most selective filters; None where the file holds none of the layer.

    Of more than 64 kept samples those among the hits of these filters come first.
    """
    if "activations" not in layer.holds:
        return None
    kept = layer.map_samples
    if not len(kept):
        return None
    chosen = most_selective(layer)[:filters]
    hits = layer.topk.sample[chosen] if "topk" in layer.holds else np.empty(0, np.int64)
    first = np.argsort(~np.isin(kept, hits), kind="stable")[:_CANDIDATES]
    values = np.stack([layer.map(int(sample))[chosen] for sample in kept[first]], axis=1)
    height = np.where(np.isfinite(values), values, -np.inf)
    # a sample counts by the filter that it excites most, in that filter's own range
    peak = height.reshape(*height.shape[:2], -1).max(-1)
    with np.errstate(invalid="ignore"):
        share = (peak - peak.mean(1, keepdims=True)) / np.maximum(peak.std(1, keepdims=True), 1e-12)
    order = np.argsort(-np.nan_to_num(share, nan=-np.inf).max(0), kind="stable")[:samples]
    return ChosenMaps(chosen, kept[first][order], values[:, order])


def pixel_centres(field: FieldMap, positions: int) -> np.ndarray:
    """[positions] float64: the middle of the box that each position sees; pixel 0 is 0 to 1."""
    start, stop = field.box(np.arange(positions))
    return (start + stop) / 2


def pixel_span(layer: Layer, dimension: int) -> tuple[float, float]:
    """Where the outer edges of a map lie along an input dimension, in pixels."""
    size = layer.info.size[dimension]
    if dimension >= len(layer.info.fields):
        return 0.0, float(size)
    centres = pixel_centres(layer.info.fields[dimension], size)
    step = (
        (centres[-1] - centres[0]) / (size - 1) if size > 1 else layer.info.fields[dimension].size
    )
    step = step or 1.0
    return float(centres[0] - step / 2), float(centres[0] - step / 2 + step * size)


def input_picture(run: Run, sample: int) -> np.ndarray | None:
    """[h, w, 3] uint8: the reduced picture of a sample, where the file keeps it."""
    thumbnail = getattr(run, "thumbnail", None)
    found = None if thumbnail is None else thumbnail(sample)
    return found if found is not None and found.ndim == 3 else None


def input_size(run: Run) -> tuple[int, ...]:
    """Spatial size of the input, () where the file does not say."""
    size = run.config.get("input_size")
    if isinstance(size, list) and all(isinstance(n, int) and n > 0 for n in size):
        return tuple(size)
    return ()
