"""Numbers about a layer that several exports show."""

from __future__ import annotations

import numpy as np

from fastconv.format.quantiles import quantiles
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


def densities(layer: Layer, filters: np.ndarray, bins: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Edges [bins + 1], and histograms of some filters over equal bins for the whole layer.

    0 is an edge, and zeros lie below it. The values of a stored bin lie anywhere in it: they are
    shared out by its overlap with the wide ones.
    """
    counts, edges = layer.histogram
    stats = layer.stats
    some = stats["count"] > 0
    low = min(float(stats["min"][some].min(initial=0)), 0.0)
    high = max(float(stats["max"][some].max(initial=0)), 0.0)
    if low == high:  # every value is 0
        low, high = -0.5, 0.5
    step = (high - low) / bins
    first = min(np.floor(low / step), -1)  # a bin for the zeros, which are not above 0
    shared = np.arange(first, np.ceil(high / step) + 1) * step
    fine = np.clip(edges, shared[0], shared[-1])
    fine[np.searchsorted(edges, 0)] = 0  # the upper edge of the bin around 0
    chosen = counts[filters]
    below = np.concatenate([np.zeros((len(chosen), 1)), chosen.cumsum(1)], 1)
    at = np.stack([np.interp(shared, fine, row) for row in below])
    return shared, np.diff(at, axis=1)


def principal(vectors: np.ndarray, count: int = 64) -> np.ndarray:
    """[n, d] vectors in at most `count` dimensions: their principal components where d is more."""
    if vectors.shape[1] <= count:
        return vectors
    centred = vectors - vectors.mean(axis=0)
    if len(centred) > centred.shape[1]:
        axes = np.linalg.eigh(centred.T @ centred)[1]
        return centred @ axes[:, : -count - 1 : -1]
    power, scores = np.linalg.eigh(centred @ centred.T)
    return (scores * np.sqrt(np.maximum(power, 0)))[:, : -count - 1 : -1]
