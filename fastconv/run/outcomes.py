"""What the model said of every sample: label, prediction, confidence, correct.

Labels that are vectors of 0 and 1 make a model multi-label: then all four are there for each class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.errors import InputError
from fastconv.perturb import describe

Output = str | int | Callable[[Any], Tensor] | None  # which part of the output has the scores
_FUNCTION = "function "
MISSING = {"label": -1, "prediction": -1, "confidence": np.nan, "correct": 0}  # if skipped


def class_scores(output: Any, which: Output, count: int) -> Tensor:
    """The scores [n, K] in the output of a model; K is 1 where two classes share one logit.

    Args:
        output: as the model gave it.
        which: name or index of the tensor in a dict or tuple, or a function of the output.
        count: n, the samples of the batch. Of a single one [K] is taken, as `squeeze` gives it.

    Raises:
        InputError: it is not there, or no tensor [n, K] or [n].
    """
    scores = which(output) if callable(which) else _part(output, which)
    if not isinstance(scores, Tensor):
        raise InputError(
            f"the model gives a {type(output).__name__}{_names(output)}; say which part has the "
            'class scores: output="logits", an index, or a function of the output'
        )
    given = list(scores.shape)
    if scores.ndim < 2:
        scores = scores.reshape(count, -1) if count == 1 else scores.reshape(-1, 1)
    if scores.ndim != 2 or len(scores) != count or scores.shape[1] == 0:
        raise InputError(
            f"outcomes need class scores [n, K], here of {count} samples; the output is {given}: "
            "give output=, a function that makes scores of it"
        )
    return scores


def _part(output: Any, which: str | int | None) -> Any:
    if which is None:
        return output
    if isinstance(output, Tensor):
        raise InputError(f"the output is a tensor, which has no {which!r}; leave output= out")
    try:
        if isinstance(which, int) or isinstance(output, Mapping):
            return output[which]
        return getattr(output, which)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InputError(
            f"the output, a {type(output).__name__}{_names(output)}, has no {which!r}; "
            "output= must name a part of it"
        ) from None


def _names(output: Any) -> str:
    if isinstance(output, Mapping):
        return f" with {', '.join(map(repr, output))}"
    return f" of {len(output)}" if isinstance(output, tuple | list) else ""


def describe_output(which: Output) -> str | int | None:
    """What identifies it, for the fingerprint."""
    if which is None or isinstance(which, str | int):
        return which
    if not callable(which):
        raise InputError(f"output must be a name, an index or a function, got {which!r}")
    found = describe(which)
    return " ".join([f"{_FUNCTION}{found.pop('name')}", *(f"{k}={v}" for k, v in found.items())])


def rebuilt_output(stored: str | int | None, given: Output) -> Output:
    """Where a file's outcomes came from: as given, or as stored.

    Raises:
        InputError: it was a function, and none is given.
    """
    if given is not None:
        return given
    if isinstance(stored, str) and stored.startswith(_FUNCTION):
        raise InputError(f"the scores came from a {stored}, which no file holds; give it: output=")
    return stored


def class_probabilities(scores: Tensor) -> Tensor:
    """[n, K] float64 of scores [n, K], or [n, 2] of one logit, on the host."""
    scores = scores.detach().double().cpu()
    if scores.shape[1] > 1:
        return scores.softmax(1)
    return torch.cat(((-scores).sigmoid(), scores.sigmoid()), 1)


def outcomes_of(scores: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Outcomes of scores [n, K]: [n], or with labels [n, K] of 0, 1 and -1 (missing) [n, K].

    Of [n] labels the softmax, or the logistic function of a single logit; of [n, K] labels the
    logistic function of each score, whose prediction is 1 where the score is above 0.

    Raises:
        InputError: a label that the scores have no class for, or not one label a score.
    """
    if labels is not None and labels.ndim == 2:
        return _of_each_class(scores, labels)
    probabilities = class_probabilities(scores)
    confidence, prediction = probabilities.max(1)
    count = probabilities.shape[1]
    if labels is None:
        labels = torch.full_like(prediction, -1)
    if len(labels) and int(labels.max()) >= count:
        raise InputError(
            f"a label is {int(labels.max())}, but the model has {count} classes (0 ... "
            f"{count - 1}); check the data set, or output="
        )
    return {
        "label": labels,
        "prediction": prediction,
        "confidence": confidence.float(),
        "correct": (prediction == labels).to(torch.uint8),
    }


def _of_each_class(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    require_a_label_each(scores, labels.shape[1])
    scores = scores.detach().double().cpu()
    prediction = (scores > 0).long()
    return {
        "label": labels,
        "prediction": prediction,
        "confidence": scores.sigmoid().float(),
        "correct": (prediction == labels).to(torch.uint8),
    }


def require_a_label_each(scores: Tensor, labels: int) -> None:
    """Expect as many scores as labels of 0 and 1.

    Raises:
        InputError: there are more or fewer.
    """
    if scores.shape[1] != labels:
        raise InputError(
            f"a label is a vector of {labels} values, one a class, but the model gives "
            f"{scores.shape[1]} scores; check the data set, or output="
        )
