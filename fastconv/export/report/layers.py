"""One layer of a run: its entry in the index, its arrays and pictures as chunks."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.export.report import distribution
from fastconv.export.report.budget import Budget
from fastconv.export.report.chunks import Chunks
from fastconv.export.report.columns import encode
from fastconv.export.report.insight import Insight
from fastconv.export.report.maps import maps
from fastconv.export.report.nearest import nearest
from fastconv.export.report.pictures import patches
from fastconv.export.report.weights import weights
from fastconv.format.result import HIT_SETS, STATUS
from fastconv.store.reader import Layer

EXEMPLARS = 8
_CLASSES = 12  # of a filter


def entry(
    layer: Layer,
    chunks: Chunks,
    budget: Budget,
    insight: Insight,
    names: list[str],
    extra: dict[str, np.ndarray],
    layers: int,
) -> dict[str, Any]:
    """Add one layer.

    Args:
        names: of the classes.
        extra: further columns [C].
        layers: how many layers the page has.
    """
    info, holds = layer.info, layer.holds
    columns = distribution.statistics(layer)
    found: dict[str, Any] = {
        "name": info.name,
        "kind": info.kind,
        "stage": info.stage,
        "filters": info.channels,
        "rank": len(info.size),
        "size": list(info.size),
        "field": [f.size for f in info.fields],
        "status": info.status,
        "kernel": info.kernel and list(info.kernel),
        "stride": info.stride and list(info.stride),
        "groups": info.groups,
        "counts": distribution.counts(columns),
        "ribbon": distribution.ribbon(columns),
        "exemplars": distribution.exemplars(columns, info.channels, EXEMPLARS),
    }
    if columns and "histogram" in holds:
        heights = distribution.histograms(layer, columns["min"], columns["max"])
        found["histogram"] = chunks.arrays(heights)
    found |= _class_lists(layer, insight, names, columns, chunks)
    found |= _responses(layer, insight, columns, chunks)
    columns |= insight.columns(info.name, info.channels) | extra
    arrays, texts = encode(columns)
    found["table"] = chunks.arrays(arrays) | {"texts": texts}
    found |= _hits(layer, "topk", chunks, budget)
    if "bottomk" in holds:
        found["weakest"] = _hits(layer, "bottomk", chunks, budget)
    if (weight := layer.weight) is not None:
        found["weights"] = weights(weight, chunks, budget)
    if "activations" in holds:
        found["maps"] = maps(layer, chunks, budget)
    if (alike := nearest(layer, layers)) is not None:
        by = "responses" if "samples" in holds else "weights"
        found["nearest"] = chunks.arrays(alike) | {"by": by}
    return found


def _hits(layer: Layer, name: str, chunks: Chunks, budget: Budget) -> dict[str, Any]:
    """As many hits as there are pictures of them, and one for the statistics at least."""
    found: dict[str, Any] = {}
    if name in layer.holds:
        hits, kept = getattr(layer, name), slice(0, max(1, budget.ranks))
        arrays = {field: values[:, kept] for field, values in hits._asdict().items()}
        arrays["status"] = np.minimum(arrays["status"], len(STATUS) - 1)
        found["hits"] = chunks.arrays(arrays)
    if HIT_SETS[name] in layer.holds:
        stored = getattr(layer, HIT_SETS[name])
        if stored.shape[0] and stored.shape[1]:
            found["patches"] = patches(stored, chunks, budget)
            found["kept_ranks"] = stored.shape[1]
    return found


def _class_lists(
    layer: Layer,
    insight: Insight,
    names: list[str],
    columns: dict[str, np.ndarray],
    chunks: Chunks,
) -> dict[str, Any]:
    """The classes that each filter tells best from the others, and two columns more."""
    grid = insight.grid("classes", layer.name, "class", names, layer.info.channels)
    if "auroc" not in grid:
        return {}
    ranked = np.argsort(-np.nan_to_num(grid["auroc"], nan=-1), axis=1, kind="stable")
    kept = ranked[:, :_CLASSES]
    best = np.take_along_axis(grid["auroc"], kept[:, :1], axis=1)[:, 0]
    known = np.array(names, dtype=object)[kept[:, 0]]
    columns["best_class"] = np.where(np.isnan(best), "", known)
    columns["class_auroc"] = best
    if "selectivity" in grid:
        with np.errstate(invalid="ignore"):
            values = np.where(np.isnan(grid["selectivity"]), -np.inf, grid["selectivity"])
            top = values.max(axis=1)
            columns["class_selectivity"] = np.where(np.isfinite(top), top, np.nan)
    arrays = {name: np.take_along_axis(values, kept, axis=1) for name, values in grid.items()}
    return {"classes": chunks.arrays({"class": kept.astype(np.int32), **arrays})}


def _responses(
    layer: Layer, insight: Insight, columns: dict[str, np.ndarray], chunks: Chunks
) -> dict[str, Any]:
    """How each filter answers to each condition; the invariance is a column too."""
    names = insight.keys("responses", "condition")
    grid = insight.grid("responses", layer.name, "condition", names, layer.info.channels)
    if not grid:
        return {}
    for i, name in enumerate(names):
        if "invariance" in grid:
            columns[f"invariance {name}"] = grid["invariance"][:, i]
    return {"responses": chunks.arrays(grid)}
