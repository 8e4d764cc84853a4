"""Filters that fire on what the model got wrong."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.judgements import Judgement, judgements
from fastconv.insight.labels import named
from fastconv.insight.reading import Table, blocks, summary
from fastconv.insight.statistics import RankSums, benjamini_hochberg, risk_ratio

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("layer", "filter", "class", "rate", "lift", "q")


def misfires(run: Any, *, quantile: float = 0.9, of: str = "max") -> pd.DataFrame:
    """List the filters that fire on wrong outcomes, worst first.

    The samples that the model mistook for a class are compared with the correct samples of the
    same true class, so a filter that serves the true class does not count.

    Args:
        run: with outcomes=True and samples=True.
        quantile: a filter fires on a sample where its response reaches this quantile of its
            responses to the correct samples of the same true class, and is not its lowest.
        of: what a response is: the "max" over the positions of a sample, or their "mean".

    Returns:
        A row a (layer, filter, class), class being the one wrongly said: `rate`, the share of
        these mistakes on which the filter fires; `lift`, this rate over that among the correct
        samples (Mantel-Haenszel; inf where it fires on none of them, 1 where on nothing); `q` of
        the one-sided van Elteren test, which needs no threshold. Sorted by its p-value, then by
        lift. Classes that nothing was mistaken for are left out. Of a multi-label model a row a
        (layer, filter, class, outcome), with `outcome` FP where the class was wrongly said, against
        samples that rightly lack it, and FN where it was missed, against those rightly found.

    Raises:
        InputError: no outcomes, no samples, fewer than two wrong outcomes, or none correct.
    """
    if not 0 < quantile < 1:
        raise InputError(f"quantile must be between 0 and 1, got {quantile}")
    table = Table(*COLUMNS[:-1], "p")
    found = [(one, _mistakes(one, run)) for one in judgements(run)]
    for layer, (one, mistakes) in itertools.product(run.layers, found):
        for block in blocks(summary(run[layer], of)[one.samples]):
            rows = block.samples
            right, label = one.right[rows], one.label[rows]
            for value, keys in mistakes:
                wrong = ~right & (one.said[rows] == value)
                if wrong.any():
                    columns = _against(block.values, wrong, right, label, quantile)
                    table.add(layer, filter=block.filters, **keys, **columns)
    by_class = found[0][0].of is not None
    frame = table.frame("outcome").dropna()
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    frame["place"] = frame["layer"].map({name: i for i, name in enumerate(run.layers)})
    keys = ["p", "lift", "place", "filter"]
    frame = frame.sort_values(keys, ascending=[True, False, True, True], kind="stable")
    names = COLUMNS[:3] + ("outcome",) * by_class + COLUMNS[3:]
    return frame.reset_index(drop=True)[list(names)]


def _mistakes(found: Judgement, run: Any) -> list[tuple[int, dict[str, Any]]]:
    """What was wrongly said, and how the table names it."""
    values = np.unique(found.said[~found.right])
    if found.of is None:
        names = named(values, run.classes)
        return [(v, {"class": n, "outcome": ""}) for v, n in zip(values, names, strict=True)]
    return [(v, {"class": found.of, "outcome": "FP" if v else "FN"}) for v in values]


def _quantile(values: np.ndarray, q: float) -> np.ndarray:
    """[C] of [N, C]: as numpy's "inverted_cdf", at a tenth of its time."""
    rank = max(math.ceil(q * len(values)) - 1, 0)
    return np.partition(np.ascontiguousarray(values.T), rank, axis=1)[:, rank]


def _against(
    values: np.ndarray, wrong: np.ndarray, right: np.ndarray, label: np.ndarray, quantile: float
) -> dict[str, np.ndarray]:
    """Wrong samples [n] bool against the right ones of the same label, per filter."""
    sums, fired, count = RankSums(1, values.shape[1]), np.zeros(values.shape[1]), 0
    tables, lowest = [], values.min(0)
    for value in np.unique(label[wrong]):
        cases, controls = wrong & (label == value), right & (label == value)
        if not controls.any():
            continue
        rows = np.flatnonzero(cases | controls)
        sums.add(values[rows], cases[None, rows])
        fires = (values >= _quantile(values[controls], quantile)) & (values > lowest)
        tables.append((fires[cases].sum(0), cases.sum(), fires[controls].sum(0), controls.sum()))
        fired, count = fired + tables[-1][0], count + cases.sum()
    if not tables:
        return {name: np.full(values.shape[1], np.nan) for name in ("rate", "lift", "p")}
    lift = risk_ratio(tables)
    return {
        "rate": fired / count,
        "lift": np.where(np.isnan(lift), 1.0, lift),
        "p": sums.test().p_above[0],
    }
