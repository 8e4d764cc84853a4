"""Filters that a layer could do without: duplicates, dead, saturated and near-constant ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fastconv.errors import InputError
from fastconv.insight.correlation import (
    cosine,
    ever_finite,
    response_correlation,
    summaries,
)

if TYPE_CHECKING:
    from fastconv.store.read_layer import Layer
    from fastconv.store.reader import Run

SATURATED = 0.9  # share of the values at the extremes
NEAR_CONSTANT = 0.01  # standard deviation over |mean|


def redundancy(run: Run) -> pd.DataFrame:
    """Find the most similar other filter of every filter, and those that hardly say anything.

    Args:
        run: made with `samples=True`, statistics and quantiles.

    Returns:
        One row a filter, for layers with weights and two filters or more that are ever finite:

        - layer, filter.
        - twin: the filter of this layer whose responses correlate most with its own.
        - weight_similarity: cosine of the weights of the two, in [-1, 1]; 0 where they lie in
          different groups of a grouped convolution, and so read different channels.
        - response_correlation: mean of the Pearson correlations of their per-sample means and
          maxima, in [-1, 1]; 0 where one is constant.
        - dead: never above 0.
        - saturated: 90 % of its values lie in the histogram bin (3 %) of its maximum or, if that
          is below 0, of its minimum. Only at the stage "act": before, nothing is bounded.
        - near_constant: standard deviation at most 1 % of the magnitude of the mean.

    Raises:
        InputError: the run kept no samples, statistics or quantiles, or no layer has weights and
            two such filters.
    """
    tables = []
    for name in run.layers:
        layer = run[name]
        weight = layer.weight
        if weight is None or len(weight) < 2:
            continue
        each = np.flatnonzero(ever_finite(summaries(layer)[0]))
        if len(each) < 2:
            continue
        responses = response_correlation(layer, layer)
        twin = each[_best_other(responses[np.ix_(each, each)])]
        table = {
            "layer": name,
            "filter": each,
            "twin": twin,
            "weight_similarity": weight_similarity(weight, layer.info.groups or 1)[each, twin],
            "response_correlation": responses[each, twin],
            "dead": layer.stats["dead"][each],
            "saturated": _saturated(layer)[each],
            "near_constant": _near_constant(layer)[each],
        }
        tables.append(pd.DataFrame(table))
    if not tables:
        raise InputError(f"no layer of {run.path} has weights and two filters of finite values")
    return pd.concat(tables, ignore_index=True)


def weight_similarity(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """[C, C]: cosine of the weights of two filters; 0 between groups."""
    group = np.arange(len(weight)) // (len(weight) // groups)
    return np.where(group[:, None] == group[None], cosine(weight, weight), 0)


def _best_other(similarity: np.ndarray) -> np.ndarray:
    """[C]: the most similar other filter; the lowest of equal ones."""
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    return others.argmax(1)


def _saturated(layer: Layer) -> np.ndarray:
    """[C] bool, from the histogram."""
    counts, edges = layer.histogram
    stats = layer.stats
    if layer.info.stage != "act":
        return np.zeros(len(counts), bool)
    each = np.arange(len(counts))
    top = np.clip(np.searchsorted(edges, stats["max"], "right") - 1, 0, counts.shape[1] - 1)
    bottom = np.clip(np.searchsorted(edges, stats["min"], "left") - 1, 0, counts.shape[1] - 1)
    zero = np.searchsorted(edges, 0.0) - 1
    at_top = np.where(top == zero, 0, counts[each, top])
    at_bottom = np.where((bottom >= zero) | (bottom == top), 0, counts[each, bottom])
    return at_top + at_bottom >= SATURATED * np.maximum(stats["count"], 1)


def _near_constant(layer: Layer) -> np.ndarray:
    """[C] bool."""
    stats = layer.stats
    return (stats["count"] > 0) & (stats["std"] <= NEAR_CONSTANT * np.abs(stats["mean"]))
