"""How filters go with what the model got right and wrong."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.insight.judgements import Judgement, judgements
from fastconv.insight.labels import named
from fastconv.insight.reading import Table, blocks, in_order, summary
from fastconv.insight.statistics import benjamini_hochberg, best_detector, correlation, rank_test

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "layer",
    "filter",
    "auroc_error",
    "r_confidence",
    "r_correct",
    "precision",
    "recall",
    "threshold",
    "q",
)
KINDS = np.array(["TP", "FP", "FN", "TN"], object)
CONFUSION_COLUMNS = ("layer", "filter", "class", "outcome", "auroc", "q")


def outcomes(run: Any, *, of: str = "max") -> pd.DataFrame:
    """Relate every filter's response to error, confidence and correctness.

    Args:
        run: with outcomes=True and samples=True.
        of: what a response is: the "max" over the positions of a sample, or their "mean".

    Returns:
        A row a (layer, filter): `auroc_error` (of wrong against correct samples), Pearson's
        `r_confidence` and `r_correct`, and the filter as a detector of errors: the `threshold`
        with the largest F1, its `precision` and `recall`; `q` is of `auroc_error`. Filters that
        answer to all samples alike are left out. Of a multi-label model a row a (layer, filter,
        class) with a column `class`: its errors, and the confidence that it holds.

    Raises:
        InputError: no outcomes, no samples, fewer than two wrong outcomes, or none correct.
    """
    table = Table(*COLUMNS[:-1], "p")
    found = judgements(run)
    for name, one in itertools.product(run.layers, found):
        for block in blocks(summary(run[name], of)[one.samples]):
            own = one.right[block.samples]
            if own.all() or not own.any():
                continue
            test = rank_test(block.values, ~own[None])
            detector = best_detector(block.values, ~own)
            table.add(
                name,
                filter=block.filters,
                auroc_error=test.auroc[0],
                r_confidence=correlation(block.values, one.confidence[block.samples]),
                r_correct=correlation(block.values, own.astype(np.float64)),
                precision=detector.precision,
                recall=detector.recall,
                threshold=detector.threshold,
                p=test.p[0],
                **{"class": one.of},
            )
    frame = table.frame("class")
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    by_class = ("class",) * (found[0].of is not None)
    return in_order(frame, run.layers)[list(COLUMNS[:2] + by_class + COLUMNS[2:])]


def confusion(run: Any, *, of: str = "max") -> pd.DataFrame:
    """Tell how well every filter separates the outcomes of each class from all other samples.

    Args and Raises as of `outcomes`.

    Returns:
        A row a (layer, filter, class, outcome), with `outcome` one of TP (of the class, and said
        to be), FP (of another, said to be of this), FN (of the class, said to be another), TN;
        `auroc` of these samples against all others, and `q`. Outcomes that no sample has, or
        every one, are left out.
    """
    table = Table(*CONFUSION_COLUMNS[:-1], "p")
    found = [(one, *_confused(one, run)) for one in judgements(run, compared=False)]
    for name, (one, members, classes) in itertools.product(run.layers, found):
        for block in blocks(summary(run[name], of)[one.samples]):
            test = rank_test(block.values, members[:, block.samples])
            table.add(
                name,
                filter=np.repeat(block.filters, len(classes)),
                **{"class": np.tile(classes, len(block.filters))},
                outcome=np.tile(KINDS, len(block.filters) * len(classes) // len(KINDS)),
                auroc=test.auroc.T.ravel(),
                p=test.p.T.ravel(),
            )
    frame = table.frame().dropna()
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    return in_order(frame, run.layers)[list(CONFUSION_COLUMNS)]


def _confused(found: Judgement, run: Any) -> tuple[np.ndarray, np.ndarray]:
    """Members [4 K, n] of each kind of outcome of each class, and their classes [4 K]."""
    if found.of is not None:  # of one class, which holds or does not
        values, names = np.ones(1, np.int64), np.array([found.of], object)
    else:
        values = np.unique(np.concatenate((found.label, found.said)))
        names = named(values, run.classes)
    own, called = found.label == values[:, None], found.said == values[:, None]
    members = np.stack((own & called, ~own & called, own & ~called, ~own & ~called), 1)
    return members.reshape(-1, len(found.label)), np.repeat(names, len(KINDS))
