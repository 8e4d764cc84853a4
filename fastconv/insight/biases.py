"""Filters that separate a group that should not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.labels import encode, strata
from fastconv.insight.reading import Table, blocks, in_order, sample_count, summary
from fastconv.insight.statistics import benjamini_hochberg, effect, rank_test

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("layer", "filter", "group", "effect", "auroc", "q")
_GROUPS = 100  # more are no groups but a quantity


def biases(
    run: Any, group: Any, *, labels: Any = None, of: str = "max", intervals: bool = False
) -> pd.DataFrame:
    """Find the filters that tell a group apart among samples of the same class.

    Only samples of one class are compared with each other (van Elteren's stratified rank test), so
    a group that merely follows the class does not count.

    Args:
        run: with samples=True and labels.
        group: [N], one a sample, or the name of a column of the run. Missing ones (None, NaN) are
            left out.
        labels: [N], the classes; or [N, K], 0 or 1 for each class: then only samples that agree
            in all of them (missing ones, too) are compared. Default those of the data set.
        of: what a response is: the "max" over the positions of a sample, or their "mean".
        intervals: add `low` and `high`, the 95 % interval of the effect.

    Returns:
        A row a (layer, filter, group): `effect` (standardised difference from the samples of other
        groups, with the class held fixed), `auroc` (stratified by class), `q`. Filters that answer
        to all samples of a class alike are left out.

    Raises:
        InputError: a group of one value, or of more than 100; no labels; no class that has two
            values of the group; no samples kept.
    """
    count = sample_count(run)
    found = encode(_column(run, group), count, "group")
    classes = strata(run, labels)
    used = (found.codes >= 0) & (classes >= 0)
    codes, classes = found.codes[used], classes[used]
    present = np.unique(codes)
    names = found.names[present]
    _require_groups(codes, classes, present)
    table = Table(*COLUMNS[:-1], "p")
    for name in run.layers:
        for block in blocks(summary(run[name], of)[used]):
            members, own = codes[block.samples] == present[:, None], classes[block.samples]
            test, size = rank_test(block.values, members, own), effect(block.values, members, own)
            columns = {
                "effect": size.size,
                "auroc": test.auroc,
                "p": test.p,
                "low": size.low,
                "high": size.high,
            }
            table.add(
                name,
                filter=np.repeat(block.filters, len(names)),
                group=np.tile(names, len(block.filters)),
                **{n: v.T.ravel() for n, v in columns.items()},
            )
    frame = table.frame("low", "high").dropna()
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    return in_order(frame, run.layers)[list(COLUMNS + ("low", "high") * intervals)]


def _column(run: Any, group: Any) -> Any:
    if not isinstance(group, str):
        return group
    columns = run.columns or {}
    if group not in columns:
        known = f"it has {', '.join(columns)}" if columns else "it has none"
        raise InputError(
            f"the run has no column {group!r}, {known}; extract with columns=[{group!r}] or give "
            "an array, one value a sample"
        )
    return columns[group]


def _require_groups(codes: np.ndarray, classes: np.ndarray, present: np.ndarray) -> None:
    if len(present) < 2:
        raise InputError("a group of one value only; biases needs two or more")
    if len(present) > _GROUPS:
        raise InputError(
            f"the group has {len(present)} values; bin it into at most {_GROUPS} (pandas.cut)"
        )
    pairs = np.unique(np.stack((classes, codes)), axis=1)
    if len(np.unique(pairs[0])) == pairs.shape[1]:
        raise InputError(
            "the group follows the class: no class has samples of two groups, so they cannot be "
            "told apart; add such samples (of many labels a sample, give labels= of one class)"
        )
