"""The classes of a data set: the filters that tell each of them, and samples of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.export.report.chunks import Chunks
from fastconv.export.report.insight import Insight
from fastconv.export.report.samples import members
from fastconv.store.reader import Run

_FILTERS = 60  # of a class
_SAMPLES = 24
_MOST_CLASSES = 2000


def class_names(run: Run, labels: np.ndarray | None, insight: Insight) -> list[str]:
    """What each class is called, by its label where it has one."""
    names = run.classes
    if labels is not None and labels.ndim == 2:
        if names is None or len(names) != labels.shape[1]:
            names = [str(number) for number in range(labels.shape[1])]
        return names[:_MOST_CLASSES]
    if names is None and labels is not None and labels.size:
        names = [str(label) for label in range(min(int(labels.max()) + 1, _MOST_CLASSES))]
    names = [str(name) for name in names or []]
    further = [name for name in insight.keys("classes", "class") if name not in set(names)]
    return (names + further)[:_MOST_CLASSES]


def classes(
    names: list[str],
    labels: np.ndarray | None,
    layers: list[str],
    hits: list[np.ndarray],
    insight: Insight,
    chunks: Chunks,
) -> list[dict[str, Any]]:
    """Add a chunk for every class.

    Args:
        names: of the classes; class i is the label i.
        labels: [N], or [N, K] of a multi-label model.
        layers: their names.
        hits: samples [C, k] of the hits of every layer.

    Returns:
        {"name", "count", "chunk"} for every class. The chunk has "told": [layer, filter, AUROC,
        effect, q] of the filters that tell the class, best first; "seen": [layer, filter, share]
        of those whose strongest hits are mostly of it; "samples": some of its samples.
    """
    told = _told(insight, layers)
    seen = _seen(labels, layers, hits, len(names))
    found = []
    for number, name in enumerate(names):
        mine = np.zeros(0, int) if labels is None else np.flatnonzero(members(labels, number))
        spread = mine[np.linspace(0, len(mine) - 1, min(len(mine), _SAMPLES)).round().astype(int)]
        chunk = {
            "told": told.get(name, []),
            "seen": seen.get(number, []),
            "samples": spread.tolist(),
        }
        found.append({"name": name, "count": len(mine), "chunk": chunks.text(chunk)})
    return found


def _told(insight: Insight, layers: list[str]) -> dict[str, list[list[Any]]]:
    """The filters with the highest AUROC of each class."""
    frame = insight.tables.get("classes")
    if frame is None or "auroc" not in frame:
        return {}
    number = {name: i for i, name in enumerate(layers)}
    frame = frame.assign(layer=frame["layer"].map(number))
    best = frame.sort_values("auroc", ascending=False, kind="stable")
    best = best[best["auroc"].notna() & best["layer"].notna()].groupby("class").head(_FILTERS)
    columns = [name for name in ("layer", "filter", "auroc", "effect", "q") if name in best]
    return {
        str(name): [[_short(v) for v in row] for row in rows[columns].to_numpy()]
        for name, rows in best.groupby("class", sort=False)
    }


def _seen(
    labels: np.ndarray | None, layers: list[str], hits: list[np.ndarray], count: int
) -> dict[int, list[list[Any]]]:
    """The filters at least half of whose hits are of one class, the purest first."""
    if labels is None or not layers:
        return {}
    found: dict[int, list[list[Any]]] = {}
    for layer, samples in enumerate(hits):
        held = (samples >= 0) & (samples < len(labels))
        of_hits = labels[np.where(held, samples, 0).ravel()]
        total = held.sum(axis=1)
        for number in range(count):
            mine = members(of_hits, number).reshape(held.shape) & held
            share = mine.sum(axis=1) / np.maximum(total, 1)
            for filter_ in np.flatnonzero((share >= 0.5) & (total > 1)):
                found.setdefault(number, []).append([layer, int(filter_), _short(share[filter_])])
    return {n: sorted(rows, key=lambda row: -row[2])[:_FILTERS] for n, rows in found.items()}


def _short(value: Any) -> float | None:
    return float(f"{float(value):.4g}") if np.isfinite(value) else None
