"""Filters that fire on what the model got wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.reading import (
    Table,
    blocks,
    kept_samples,
    named,
    require_outcomes,
    require_wrong,
    summary,
)
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
        lift. Classes that nothing was mistaken for are left out.

    Raises:
        InputError: no outcomes, no samples, fewer than two wrong outcomes, or none correct.
    """
    if not 0 < quantile < 1:
        raise InputError(f"quantile must be between 0 and 1, got {quantile}")
    found = require_outcomes(run)
    used = kept_samples(run, len(found["label"])) & (found["label"] >= 0)
    label, said = found["label"][used], found["prediction"][used]
    right = found["correct"][used] != 0
    require_wrong(~right, right)
    mistaken_for = np.unique(said[~right])
    names = named(mistaken_for, run.classes)
    table = Table(*COLUMNS[:-1], "p")
    for layer in run.layers:
        for block in blocks(summary(run[layer], of)[used]):
            rows = block.samples
            for value, name in zip(mistaken_for, names, strict=True):
                wrong = ~right[rows] & (said[rows] == value)
                if wrong.any():
                    columns = _against(block.values, wrong, right[rows], label[rows], quantile)
                    table.add(layer, filter=block.filters, **{"class": name}, **columns)
    frame = table.frame().dropna()
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    frame["place"] = frame["layer"].map({name: i for i, name in enumerate(run.layers)})
    keys = ["p", "lift", "place", "filter"]
    frame = frame.sort_values(keys, ascending=[True, False, True, True], kind="stable")
    return frame.reset_index(drop=True)[list(COLUMNS)]


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
