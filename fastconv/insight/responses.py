"""How filters answer to changes of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.reading import COLUMNS as AT_ONCE
from fastconv.insight.reading import Table, complete, kept_samples, sample_count, summary
from fastconv.insight.statistics import concordance, correlation, paired_change, ranks

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "layer",
    "filter",
    "condition",
    "mean_change",
    "low",
    "high",
    "max_change",
    "rank_correlation",
    "invariance",
    "topk_overlap",
)


def responses(run: Any) -> pd.DataFrame:
    """Compare every filter's response to the same samples unchanged and changed.

    Args:
        run: with conditions={...}, samples=True and topk >= 1.

    Returns:
        A row a (layer, filter, condition): `mean_change`, the mean over samples of the paired
        change of the mean over positions, with its 95 % interval `low` ... `high`; `max_change`,
        that of the maximum; `rank_correlation` (Spearman's, of the maxima over samples);
        `invariance` (0 ... 1, Lin's concordance correlation of the maxima); `topk_overlap`, the
        share of the samples of the top-k that stay in it. Filters that answer to all samples alike
        whether changed or not are left out.

    Raises:
        InputError: no conditions, no samples kept, or fewer than two of them.
    """
    if not run.conditions:
        raise InputError(
            'the run has no conditions; extract it with conditions={"rot15": '
            "fastconv.perturb.rotate(15)}, samples=True"
        )
    kept = kept_samples(run, sample_count(run))
    if kept.sum() < 2:
        raise InputError(f"an interval needs two samples at least, the run has {kept.sum()}")
    table = Table(*COLUMNS)
    for name in run.layers:
        layer = run[name]
        before = summary(layer, "mean")[kept], summary(layer, "max")[kept]
        hits = _hits(layer)
        changed = [layer.condition(condition) for condition in run.conditions]
        for condition, other in zip(run.conditions, changed, strict=True):
            after = summary(other, "mean")[kept], summary(other, "max")[kept]
            overlap = topk_overlap(hits, _hits(other))
            for start in range(0, before[0].shape[1], AT_ONCE):
                filters = slice(start, start + AT_ONCE)
                parts = [values[:, filters] for values in (*before, *after)]
                for columns, found in _compared(*parts):
                    at = start + columns
                    table.add(
                        name, filter=at, condition=condition, topk_overlap=overlap[at], **found
                    )
    frame = table.frame()
    place = {name: i for i, name in enumerate(run.layers)}
    order = {name: i for i, name in enumerate(run.conditions)}
    keys = (frame["condition"].map(order), frame["filter"], frame["layer"].map(place))
    return frame.iloc[np.lexsort(keys)].reset_index(drop=True)[list(COLUMNS)]


def _compared(
    mean: np.ndarray, high: np.ndarray, mean_after: np.ndarray, high_after: np.ndarray
) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """(filters [c], their columns) of arrays [N, C]; filters of the same finite samples at once."""
    finite = np.isfinite(high) & np.isfinite(high_after)
    found = []
    for rows, columns in complete(finite):
        if len(rows) < 2:
            continue
        a, b = high[rows][:, columns], high_after[rows][:, columns]
        varied = ((a != a[:1]) | (b != b[:1])).any(0)
        columns, a, b = columns[varied], a[:, varied], b[:, varied]
        if not len(columns):
            continue
        change, low, upper = paired_change(mean[rows][:, columns], mean_after[rows][:, columns])
        values = {
            "mean_change": change,
            "low": low,
            "high": upper,
            "max_change": (b.astype(np.float64) - a).mean(0),
            "rank_correlation": correlation(ranks(a), ranks(b)),
            "invariance": concordance(a, b),
        }
        found.append((columns, values))
    return found


def _hits(layer: Any) -> np.ndarray:
    """[C, k] int64, the samples of the top-k."""
    hits = layer.topk.sample
    if not hits.shape[1]:
        raise InputError("the run kept no top-k; extract it with topk >= 1")
    return hits


def topk_overlap(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Share [C] of the samples [C, k] (-1 of empty slots) that are in both; 0 without any."""
    shares = np.zeros(len(before))
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        own = set(a[a >= 0].tolist())
        if own:
            shares[i] = len(own & set(b[b >= 0].tolist())) / len(own)
    return shares
