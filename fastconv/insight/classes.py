"""How filters answer to the classes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.insight.labels import comparisons
from fastconv.insight.reading import Table, blocks, in_order, summary
from fastconv.insight.statistics import benjamini_hochberg, effect, rank_test

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("layer", "filter", "class", "mean", "effect", "auroc", "selectivity", "q")


def classes(
    run: Any, labels: Any = None, *, of: str = "max", intervals: bool = False
) -> pd.DataFrame:
    """Compare every filter's response to each class with its response to the others.

    Args:
        run: with samples=True.
        labels: [N], one a sample; or [N, K], 0 or 1 for each of K classes. Default those of the
            data set. Missing ones (None, NaN; in [N, K] -1 or NaN) are left out.
        of: what a response is: the "max" over the positions of a sample, or their "mean".
        intervals: add `low` and `high`, the 95 % interval of the effect.

    Returns:
        A row a (layer, filter, class): `mean` response to the class, `effect` (Cohen's d against
        the other samples), `auroc`, `selectivity` (-1 ... 1), `q`. Filters that answer to all
        samples alike are left out.

    Raises:
        InputError: no labels, or of one class only; no samples kept.
    """
    table = Table(*COLUMNS[:-1], "p")
    compared = comparisons(run, labels)
    for name, one in itertools.product(run.layers, compared):
        for block in blocks(summary(run[name], of)[one.samples]):
            members, names = one.members[:, block.samples], one.names
            counts = members.sum(1, keepdims=True)
            test, size = rank_test(block.values, members), effect(block.values, members)
            with np.errstate(invalid="ignore"):
                mean = members.astype(np.float64) @ block.values / counts
            columns = {
                "mean": mean,
                "effect": size.size,
                "auroc": test.auroc,
                "selectivity": _selectivity(block.values, members),
                "p": test.p,
                "low": size.low,
                "high": size.high,
            }
            table.add(
                name,
                filter=np.repeat(block.filters, len(names)),
                **{"class": np.tile(names, len(block.filters))},
                **{n: v.T.ravel() for n, v in columns.items()},
            )
    frame = table.frame("low", "high").dropna()
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    return in_order(frame, run.layers)[list(COLUMNS + ("low", "high") * intervals)]


def _selectivity(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """(a - b) / (a + b) of the mean rectified response to a class and to the others; [G, C].

    0 where the filter answers to neither.
    """
    above = np.maximum(values, 0).astype(np.float64)
    inside, counts = members.astype(np.float64) @ above, members.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        own, others = inside / counts, (above.sum(0) - inside) / (len(values) - counts)
    total = own + others
    return np.where(total > 0, (own - others) / np.where(total > 0, total, 1), 0)
