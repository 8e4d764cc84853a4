"""What the model said of the samples, and whether it was right."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.labels import names_of_vectors
from fastconv.insight.reading import kept_samples


class Judgement(NamedTuple):
    """Outcomes [n] of the samples whose label is known; in a multi-label model those of one class.

    There a label is 1 where the class holds, and the confidence its probability.
    """

    of: Any  # the class; None where every sample has one label
    samples: np.ndarray  # [n] int64
    label: np.ndarray
    said: np.ndarray
    right: np.ndarray  # bool
    confidence: np.ndarray  # float64


def judgements(run: Any, *, compared: bool = True) -> list[Judgement]:
    """The outcomes of a run, of a multi-label model class by class.

    Args:
        compared: expect both right and wrong ones.

    Raises:
        InputError: no outcomes or no labels; fewer than two wrong ones, or none right.
    """
    found = run.outcomes
    if found is None or len(found) == 0:
        raise InputError("the run has no outcomes; extract it with outcomes=True, samples=True")
    label, said, confidence, correct = (np.asarray(found[name]) for name in OUTCOMES)
    if (label < 0).all():
        raise InputError(
            "the outcomes have no labels; extract a data set that gives (x, y), y an integer"
        )
    if not np.isfinite(confidence).any():
        raise InputError("the scores of the model are NaN for all samples: check it, or output=")
    kept = kept_samples(run, len(label))
    names: Any = [None] if label.ndim == 1 else names_of_vectors(run, label.shape[1])
    made = []
    for number, name in enumerate(names):
        one = [v if v.ndim == 1 else v[:, number] for v in (label, said, correct, confidence)]
        used = np.flatnonzero(kept & (one[0] >= 0) & np.isfinite(one[3]))
        own = [values[used] for values in one]
        made.append(Judgement(name, used, own[0], own[1], own[2] != 0, own[3].astype(np.float64)))
    if compared:
        _require_both(made)
    return made


OUTCOMES = ("label", "prediction", "confidence", "correct")


def _require_both(found: list[Judgement]) -> None:
    """Refuse outcomes of which nothing can be told apart."""
    wrong = sum((~one.right).sum() for one in found)
    if wrong < 2:
        raise InputError(f"fewer than two wrong outcomes ({wrong}): use more or harder data")
    if not any(one.right.any() for one in found):
        raise InputError("no outcome is correct: check the labels, or the output= of the model")
