"""Statistics of a layer as the page shows them: columns, histograms, the ribbon of quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.store.reader import Layer

BINS = 48  # of the histogram of a filter, between its least and its greatest value
RIBBON = 64  # columns of the ribbon of a layer
QUANTILES = {f"q{share:02d}": share / 100 for share in (1, 5, 25, 50, 75, 95, 99)}
SPARSE = 0.05  # a filter above 0 at fewer positions than this share is sparse
SELECTIVE = 8.0  # a filter whose maximum is so many standard deviations above its mean


def statistics(layer: Layer) -> dict[str, np.ndarray]:
    """One array [C] a column; empty where the run kept no statistics."""
    if "stats" not in layer.holds:
        return {}
    stats = layer.stats
    names = ("mean", "std", "min", "max", "positive", "nonfinite", "dead")
    found = {name: np.asarray(stats[name], np.float64) for name in names}
    with np.errstate(invalid="ignore", divide="ignore"):
        found["standout"] = (found["max"] - found["mean"]) / found["std"]
    found["standout"][~np.isfinite(found["standout"])] = np.nan
    if "histogram" in layer.holds:
        values = layer.quantile(list(QUANTILES.values()))
        found |= dict(zip(QUANTILES, values.T, strict=True))
    return found


def counts(columns: dict[str, np.ndarray]) -> dict[str, int] | None:
    """How many filters are dead, sparse and selective."""
    if not columns:
        return None
    dead = columns["dead"] > 0
    return {
        "dead": int(dead.sum()),
        "sparse": int(((columns["positive"] < SPARSE) & ~dead).sum()),
        "selective": int((columns["standout"] >= SELECTIVE).sum()),
    }


def ribbon(columns: dict[str, np.ndarray]) -> list[list[float]] | None:
    """Quantiles 1, 25, 50, 75, 99 % [5][n] over the filters, which are sorted by their median."""
    if "q50" not in columns:
        return None
    names = ("q01", "q25", "q50", "q75", "q99")
    values = np.stack([columns[name] for name in names])
    values = values[:, np.isfinite(values).all(axis=0)]
    if not values.shape[1]:
        return None
    values = values[:, np.argsort(values[2], kind="stable")]
    at = np.linspace(0, values.shape[1] - 1, min(RIBBON, values.shape[1])).round().astype(int)
    return [[float(f"{v:.4g}") for v in row] for row in values[:, at]]


def histograms(layer: Layer, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """Heights uint8 [C, BINS] on a square-root scale, and the share [C] of the tallest bin."""
    counts, edges = layer.histogram
    filters = len(counts)
    shares = np.zeros((filters, BINS))
    below = np.zeros(counts.shape[1] + 1)
    for i in range(filters):
        total = counts[i].sum()
        if not total or not high[i] > low[i]:
            shares[i, BINS // 2] = float(total > 0)
            continue
        np.cumsum(counts[i], out=below[1:])
        # the values of a fine bin lie anywhere in it: they are shared out by its overlap
        wide = np.linspace(low[i], high[i], BINS + 1)
        first, last = np.searchsorted(edges, (low[i], high[i]))
        part = slice(max(first - 1, 0), last + 1)
        fine = np.clip(edges[part], low[i], high[i])
        shares[i] = np.diff(np.interp(wide, fine, below[part])) / total
    tallest = shares.max(axis=1)
    scale = np.where(tallest > 0, tallest, 1)[:, None]
    heights = np.ceil(255 * np.sqrt(shares / scale)).astype(np.uint8)
    return {"height": heights, "tallest": tallest.astype(np.float32)}


def exemplars(columns: dict[str, np.ndarray], filters: int, count: int) -> list[int]:
    """The filters that stand out furthest."""
    if not columns:
        return list(range(min(filters, count)))
    order = np.argsort(-np.nan_to_num(columns["standout"], nan=-np.inf), kind="stable")
    return [int(i) for i in order[:count]]


def finite_or_none(value: Any) -> float | None:
    """A number that JSON can hold."""
    return float(value) if value is not None and np.isfinite(value) else None
