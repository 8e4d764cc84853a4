"""Two runs side by side: which filter became which, and what changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from fastconv.errors import InputError
from fastconv.insight.correlation import (
    complete_rows,
    cosine,
    ever_finite,
    linear_cka,
    response_correlation,
    summaries,
)

if TYPE_CHECKING:
    from fastconv.store.read_layer import Layer
    from fastconv.store.reader import Run

STATISTICS = ("mean", "std", "min", "max", "positive")


def compare(a: Run, b: Run) -> pd.DataFrame:
    """Match the filters of two runs, layer by layer, and say what changed.

    Layers of one name are compared. Where both runs saw the same data with `samples=True`, filters
    are matched so that the sum of their response correlations is largest, else by the cosine of
    their weights as they stand. That is of use for networks that come from one another
    (fine-tuned, pruned, quantised); the filters of networks trained apart are permuted.

    Args:
        a, b: runs with statistics.

    Returns:
        One row a filter of `a` that has a match (all, but for layers of more filters in `a`); both
        are finite somewhere:

        - layer, filter, match: the filter of `b`.
        - similarity: of the two, in [-1, 1]. basis: "responses" or "weights".
        - mean_change, std_change, min_change, max_change, positive_change: `b` minus `a`.
        - cka: linear CKA of the two layers over the per-sample means of all their filters, the
          same in every row of a layer. Only layers matched by responses have one: it is NaN where
          basis is "weights", and without any other row there is no such column.

        `table.attrs` has "cka" ({layer: value}), "only_in_a" and "only_in_b" (names of layers), and
        "left_out" ({layer: why}): layers whose filters cannot be matched, as a warning says too.

    Raises:
        InputError: no layer in common, or none whose filters can be matched; no statistics.

    Source: Li et al., Convergent Learning, ICLR 2016 (matching); Kornblith et al., ICML 2019 (CKA).
    """
    common = [name for name in a.layers if name in b]
    if not common:
        raise InputError(
            f"{a.path} and {b.path} have no layer in common: {_some(a.layers)}; {_some(b.layers)}"
        )
    same_data = _same_data(a, b)
    tables, alignment, left_out = [], {}, {}
    for name in common:
        first, second = a[name], b[name]
        by_responses = same_data and _kept_samples(first, second)
        similarity = (response_correlation if by_responses else _weights)(first, second)
        if isinstance(similarity, str):
            left_out[name] = similarity
            continue
        table = _matched(first, second, similarity, "responses" if by_responses else "weights")
        if by_responses:
            x, y = (means[:, ever_finite(means)] for means, _ in map(summaries, (first, second)))
            alignment[name] = table["cka"] = linear_cka(x, y, complete_rows(x, y))
        tables.append(pd.DataFrame(table))
    if left_out:
        _tell(left_out, error=not tables)
    found = pd.concat(tables, ignore_index=True)
    found.attrs = {
        "cka": alignment,
        "left_out": left_out,
        "only_in_a": [name for name in a.layers if name not in b],
        "only_in_b": [name for name in b.layers if name not in a],
    }
    return found


def _same_data(a: Run, b: Run) -> bool:
    """Whether row i of the samples of both is the same sample."""
    seen = []
    for run in (a, b):
        identity, samples = run.config.get("fingerprint"), run.samples
        if not isinstance(identity, dict) or "data" not in identity or samples is None:
            return False
        seen.append((identity["data"], identity.get("shard"), samples.count))
    return seen[0] == seen[1]


def _kept_samples(*layers: Layer) -> bool:
    return all("samples" in layer.holds for layer in layers)


def _matched(a: Layer, b: Layer, similarity: np.ndarray, basis: str) -> dict[str, Any]:
    filters, match = linear_sum_assignment(similarity, maximize=True)
    before, after = a.stats, b.stats
    counted = (before["count"][filters] > 0) & (after["count"][match] > 0)
    filters, match = filters[counted], match[counted]
    return {
        "layer": a.name,
        "filter": filters,
        "match": match,
        "similarity": similarity[filters, match],
        "basis": basis,
        **{
            f"{name}_change": np.subtract(after[name][match], before[name][filters], dtype=float)
            for name in STATISTICS
        },
    }


def _weights(a: Layer, b: Layer) -> np.ndarray | str:
    """The cosines [C_a, C_b] of the weights of filters, or why there are none."""
    first, second = a.weight, b.weight
    if first is None or second is None:
        return "it has no weights"
    if first.shape[1:] != second.shape[1:]:
        return f"its kernels are {list(first.shape[1:])} and {list(second.shape[1:])}"
    return cosine(first, second)


def _tell(left_out: Mapping[str, str], *, error: bool) -> None:
    """Warn of layers that are left out, or raise where they are all."""
    layers = _some([f"{name} ({reason})" for name, reason in left_out.items()])
    why = (
        f"{layers}, whose filters cannot be matched by weights; extract both runs from the same "
        "data with samples=True"
    )
    if error:
        raise InputError(f"nothing to compare: {why}")
    warnings.warn(f"left out: {why}", stacklevel=3)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
