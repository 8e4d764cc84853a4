"""Numbers about a layer that several exports show."""

from __future__ import annotations

import numpy as np

from fastconv.store.quantiles import quantiles
from fastconv.store.reader import Layer

STATISTICS = ("dead", "positive", "mean", "std", "min", "max", "nonfinite")


def most_selective(layer: Layer) -> np.ndarray:
    """Filters by their strongest hit, in standard deviations above the mean; [C] indices.

    Without hits or statistics in the file they keep their order.
    """
    if not {"topk", "stats"} <= set(layer.holds):
        return np.arange(layer.info.channels)
    stats = layer.stats
    spread = np.where(stats["std"] > 0, stats["std"], np.inf)
    height = (layer.topk.values[:, 0] - stats["mean"]) / spread
    return np.argsort(-np.nan_to_num(height, nan=-np.inf), kind="stable")


def layer_statistic(layer: Layer, name: str) -> float:
    """One statistic of a whole layer.

    `dead`: the share of filters that are never above 0; `positive`: the mean share of values above
    0; `mean`, `std`: the mean over its filters; `min`, `max`: its extrema; `nonfinite`: the share
    of values that are NaN or infinite. NaN where no value of the layer is finite, or the file has
    no statistics.
    """
    if "stats" not in layer.holds:
        return float("nan")
    stats = layer.stats
    if name == "nonfinite":
        total = stats["count"].sum() + stats["nonfinite"].sum()
        return float(stats["nonfinite"].sum() / total) if total else float("nan")
    values = stats[name][stats["count"] > 0]
    if not len(values):
        return float("nan")
    return float({"min": np.min, "max": np.max}.get(name, np.mean)(values))


def layer_quantiles(layer: Layer, q: list[float]) -> np.ndarray:
    """[len(q)] float64: quantiles of all values of a layer; NaN where none is finite."""
    counts, edges = layer.histogram
    stats = layer.stats
    if not stats["count"].any():
        return np.full(len(q), np.nan)
    low, high = np.nanmin(stats["min"]), np.nanmax(stats["max"])
    return quantiles(counts.sum(0)[None], edges, low[None], high[None], np.array(q))[0]


def densities(layer: Layer, bins: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Edges [bins + 1] and histograms [C, bins] over equal bins that the filters share.

    0 is an edge. The values of a stored bin lie anywhere in it: they are shared out by its overlap
    with the wide ones.
    """
    counts, edges = layer.histogram
    stats = layer.stats
    some = stats["count"] > 0
    low = min(float(stats["min"][some].min(initial=0)), 0.0)
    high = max(float(stats["max"][some].max(initial=0)), 0.0)
    if low == high:  # every value is 0
        low, high = -0.5, 0.5
    step = (high - low) / bins
    shared = np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step
    fine = np.clip(edges, shared[0], shared[-1])
    below = np.concatenate([np.zeros((len(counts), 1)), counts.cumsum(1)], 1)
    at = np.stack([np.interp(shared, fine, row) for row in below])
    return shared, np.diff(at, axis=1)
