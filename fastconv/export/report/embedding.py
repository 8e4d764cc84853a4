"""The samples of a data set in the plane, and what its filters say of a part of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.export.report import insight
from fastconv.export.report.budget import EMBEDDED_SAMPLES, SAMPLE_VALUES
from fastconv.export.report.chunks import Chunks
from fastconv.export.report.distribution import finite_or_none
from fastconv.store.reader import Run

_MOST_SAMPLES = 50_000  # that are embedded for a page


def embedding(run: Run, chunks: Chunks) -> tuple[dict[str, Any] | None, np.ndarray, str]:
    """Add the embedding that was kept beside the run, else one of its last layer.

    Returns:
        {"layer", "method", "warning", "trustworthiness", "points"} or None; the samples [n] that
        are shown; and where there is none, why. The chunk has sample [n], point [n, 2] and, where
        it fits, response uint8 [n, C]: the maxima in 255ths of each filter's range.
    """
    none = np.zeros(0, np.int64)
    kept = [name for name in run.layers if "samples" in run[name].holds]
    if not kept:
        return None, none, "the run kept no samples; extract it with samples=True"
    if run.samples is not None and run.samples.count > _MOST_SAMPLES:
        return None, none, f"more than {_MOST_SAMPLES:,} samples: call fastconv.insight.embed"
    made, why = insight.embedding(run, kept)
    if made is None:
        return None, none, why
    points, trust, parameters = made
    layer = run[parameters["layer"]]
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))
    step = -(-len(usable) // EMBEDDED_SAMPLES) or 1
    chosen = usable[::step]
    arrays = {"sample": chosen, "point": points[chosen]}
    maxima = layer.samples.max
    if maxima is not None and len(chosen) * maxima.shape[1] <= SAMPLE_VALUES:
        arrays["response"] = _levels(maxima[chosen])
    found = {
        "layer": layer.name,
        "method": str(parameters.get("method", "pca")),
        "warning": str(parameters.get("warning", "")),
        "trustworthiness": finite_or_none(trust),
        "points": chunks.arrays(arrays),
    }
    return found, chosen, ""


def _levels(values: np.ndarray) -> np.ndarray:
    """[n, C] as uint8 between the least and the greatest value of each column."""
    values = np.where(np.isfinite(values), values, np.nan)
    filled = np.nan_to_num(values - np.nanmin(values, axis=0, initial=np.inf))
    peak = filled.max(axis=0, initial=0)
    return np.rint(255 * filled / np.where(peak > 0, peak, 1)).astype(np.uint8)
