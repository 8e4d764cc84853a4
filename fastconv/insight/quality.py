"""How good the answers of a classifier are, and by how much they change: paired intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats
from torch import Tensor

from fastconv.errors import InputError
from fastconv.run.outcomes import class_probabilities, require_a_label_each

DRAWS = 2000  # of the bootstrap
LEVEL = 0.95


class Answers:
    """Labels, predictions and confidences of a classifier, batch by batch."""

    def __init__(self) -> None:
        self._label: list[np.ndarray] = []
        self._prediction: list[np.ndarray] = []
        self._confidence: list[np.ndarray] = []

    def add(self, scores: Tensor, labels: np.ndarray) -> None:
        """Take scores [n, classes], or [n, 1] of two classes, and labels [n] or [n, classes].

        Scores of NaN are no answer: -1, of confidence 0.

        Raises:
            InputError: labels that are no class of the model.
        """
        if labels.ndim == 1:
            probability = class_probabilities(scores)
            _check_range(labels, probability.shape[1])
            confidence, prediction = probability.max(1)
        else:
            require_a_label_each(scores, labels.shape[1])
            logit = scores.detach().double().cpu()
            confidence, prediction = logit.sigmoid(), logit > 0
        sure, said = confidence.numpy(), prediction.numpy().astype(np.int32)
        answered = np.isfinite(sure)
        self._label.append(labels)
        self._prediction.append(np.where(answered, said, -1))
        self._confidence.append(np.where(answered, sure, 0))

    @property
    def label(self) -> np.ndarray:
        return np.concatenate(self._label)

    @property
    def prediction(self) -> np.ndarray:
        return np.concatenate(self._prediction)

    @property
    def confidence(self) -> np.ndarray:
        return np.concatenate(self._confidence)


def _check_range(labels: np.ndarray, classes: int) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise InputError(
            f"label {labels[wrong[0]]} is out of range: the model tells {classes} classes "
            f"apart, 0 to {classes - 1}"
        )


def changes(whole: Answers, without: Answers) -> dict[str, np.ndarray]:
    """Accuracy, precision, recall and confidence of every class, with and without; columns [K].

    Of several labels a sample: of every class that some sample has, over the samples whose label of
    it is known.
    """
    given = [whole.label, whole.prediction, without.prediction]
    given += [whole.confidence, without.confidence]
    label = whole.label
    if label.ndim == 1:
        return _changes(given, np.unique(label))
    found = []
    for number in np.flatnonzero((label == 1).any(0)):
        known = label[:, number] >= 0
        columns = _changes([values[known, number] for values in given], np.ones(1, int))
        found.append(columns | {"class": np.array([number])})
    if not found:
        raise InputError("no sample has any of the classes: all labels are 0 or missing")
    return {name: np.concatenate([columns[name] for columns in found]) for name in found[0]}


def _changes(given: Sequence[np.ndarray], classes: np.ndarray) -> dict[str, np.ndarray]:
    """The columns [K] of some classes, from labels, predictions and confidences [N]."""
    label, before, after, sure_before, sure_after = given
    columns: dict[str, np.ndarray] = {"class": classes}
    pairs = {
        **_rates(label, before, after, classes),
        "confidence": _confidences(label, sure_before, sure_after, classes),
    }
    for name, (first, second, low, high) in pairs.items():
        columns |= {
            name: first,
            f"{name}_without": second,
            f"{name}_change": second - first,
            f"{name}_low": low,
            f"{name}_high": high,
        }
    return columns


Paired = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # before, after, low, high [K]


def _rates(
    label: np.ndarray, before: np.ndarray, after: np.ndarray, classes: np.ndarray
) -> dict[str, Paired]:
    """Accuracy, precision and recall, with percentile intervals of the paired bootstrap.

    Samples of the same (label, answer before, answer after) are alike, so a draw of N samples is
    a draw of their numbers from the multinomial distribution.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    cells, numbers = np.unique(np.stack([label, before, after], 1), axis=0, return_counts=True)
    random = np.random.default_rng(0)
    drawn = random.multinomial(len(label), numbers / len(label), DRAWS)
    counts = np.concatenate([numbers[None], drawn]).astype(np.float64)  # [1 + DRAWS, cells]
    first, second = (_quality(counts, cells[:, 0], cells[:, i], classes) for i in (1, 2))
    found = {}
    for name in first:
        change = second[name][1:] - first[name][1:]
        low, high = np.quantile(change, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        found[name] = (first[name][0], second[name][0], low, high)
    return found


def _quality(
    counts: np.ndarray, label: np.ndarray, answer: np.ndarray, classes: np.ndarray
) -> dict[str, np.ndarray]:
    """Each [draws, K]; a share of nothing is 0."""
    of_class = (label[:, None] == classes).astype(np.float64)  # [cells, K]
    as_class = (answer[:, None] == classes).astype(np.float64)
    right = counts @ (of_class * as_class)
    total = counts @ (label == answer) / counts.sum(1)
    return {
        "accuracy": np.repeat(total[:, None], len(classes), 1),
        "precision": right / np.maximum(counts @ as_class, 1),
        "recall": right / np.maximum(counts @ of_class, 1),
    }


def _confidences(
    label: np.ndarray, before: np.ndarray, after: np.ndarray, classes: np.ndarray
) -> Paired:
    """Means over the samples of a class, with the paired t interval; one sample has -1 to 1."""
    rows = []
    for number in classes:
        of_class = label == number
        change = after[of_class] - before[of_class]
        count = len(change)
        reach = 2.0
        if count > 1:
            spread = change.std(ddof=1) / np.sqrt(count)
            reach = stats.t.ppf((1 + LEVEL) / 2, count - 1) * spread
        middle = change.mean()
        ends = max(-1.0, middle - reach), min(1.0, middle + reach)
        rows.append((before[of_class].mean(), after[of_class].mean(), *ends))
    first, second, low, high = np.array(rows).T
    return first, second, low, high
