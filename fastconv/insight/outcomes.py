"""How filters go with what the model got right and wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.insight.reading import (
    Table,
    blocks,
    in_order,
    kept_samples,
    named,
    require_outcomes,
    require_wrong,
    summary,
)
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
        answer to all samples alike are left out.

    Raises:
        InputError: no outcomes, no samples, fewer than two wrong outcomes, or none correct.
    """
    found = require_outcomes(run)
    used = kept_samples(run, len(found["label"])) & (found["label"] >= 0)
    right = found["correct"][used] != 0
    require_wrong(~right, right)
    confidence = found["confidence"][used].astype(np.float64)
    table = Table(*COLUMNS[:-1], "p")
    for name in run.layers:
        for block in blocks(summary(run[name], of)[used]):
            own = right[block.samples]
            if own.all() or not own.any():
                continue
            test = rank_test(block.values, ~own[None])
            detector = best_detector(block.values, ~own)
            table.add(
                name,
                filter=block.filters,
                auroc_error=test.auroc[0],
                r_confidence=correlation(block.values, confidence[block.samples]),
                r_correct=correlation(block.values, own.astype(np.float64)),
                precision=detector.precision,
                recall=detector.recall,
                threshold=detector.threshold,
                p=test.p[0],
            )
    frame = table.frame()
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    return in_order(frame, run.layers)[list(COLUMNS)]


def confusion(run: Any, *, of: str = "max") -> pd.DataFrame:
    """Tell how well every filter separates the outcomes of each class from all other samples.

    Args and Raises as of `outcomes`.

    Returns:
        A row a (layer, filter, class, outcome), with `outcome` one of TP (of the class, and said
        to be), FP (of another, said to be of this), FN (of the class, said to be another), TN;
        `auroc` of these samples against all others, and `q`. Outcomes that no sample has, or
        every one, are left out.
    """
    found = require_outcomes(run)
    used = kept_samples(run, len(found["label"])) & (found["label"] >= 0)
    label, said = found["label"][used], found["prediction"][used]
    values = np.unique(np.concatenate((label, said)))
    own, called = label == values[:, None], said == values[:, None]
    members = np.stack((own & called, ~own & called, own & ~called, ~own & ~called), 1)
    members = members.reshape(-1, len(label))  # [4 K, N]
    classes = np.repeat(named(values, run.classes), 4)
    kinds = np.tile(np.array(["TP", "FP", "FN", "TN"], object), len(values))
    table = Table(*CONFUSION_COLUMNS[:-1], "p")
    for name in run.layers:
        for block in blocks(summary(run[name], of)[used]):
            test = rank_test(block.values, members[:, block.samples])
            table.add(
                name,
                filter=np.repeat(block.filters, len(kinds)),
                **{"class": np.tile(classes, len(block.filters))},
                outcome=np.tile(kinds, len(block.filters)),
                auroc=test.auroc.T.ravel(),
                p=test.p.T.ravel(),
            )
    frame = table.frame().dropna()
    frame["q"] = benjamini_hochberg(frame["p"].to_numpy())
    return in_order(frame, run.layers)[list(CONFUSION_COLUMNS)]
