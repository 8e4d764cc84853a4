"""The stored outcomes, compared with what the model says again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from fastconv.run.job import Job
from fastconv.run.outcomes import class_probabilities, outcomes_of
from fastconv.verification.check import Check


class OutcomeCheck:
    """Compares label, prediction, confidence and correctness of samples."""

    exact: bool = False  # the same software and machine made the file: no slack

    def __init__(self, stored: Mapping[str, np.ndarray], job: Job):
        self._stored = {name: np.asarray(values) for name, values in stored.items()}
        self._slack = 1e-3 if job.options.dtype in (None, "float32") else 5e-2
        self.forget()

    def forget(self) -> None:
        """Start anew: nothing was compared."""
        self._checked = 0
        self._wrong: dict[str, list[int]] = {}

    def compare(self, samples: np.ndarray, scores: Tensor, labels: Tensor | None) -> None:
        """Compare the samples [n], of which the model gives scores [n, K] now."""
        again = {name: v.numpy() for name, v in outcomes_of(scores, labels).items()}
        stored = {name: values[samples] for name, values in self._stored.items()}
        self._checked += len(samples)
        if stored["label"].shape != again["label"].shape:  # of one label, or of one for each class
            self._note("label", np.ones(len(samples), bool), samples)
            return
        slack = 0.0 if self.exact else self._slack
        near = np.abs(stored["confidence"] - again["confidence"]) <= slack
        near |= np.isnan(stored["confidence"]) & np.isnan(again["confidence"])
        self._note("label", stored["label"] != again["label"], samples)
        self._note("confidence", ~near, samples)
        other = stored["prediction"] != again["prediction"]
        self._note("prediction", other & ~self._tied(scores, stored["prediction"]), samples)
        right = (stored["prediction"] == stored["label"]).astype(np.uint8)
        self._note("correct", stored["correct"] != right, samples)

    def _tied(self, scores: Tensor, prediction: np.ndarray) -> np.ndarray:
        """Where rounding alone may have preferred the stored prediction; never if `exact`."""
        if self.exact:
            return np.zeros(prediction.shape, bool)
        if prediction.ndim == 2:
            margin = (scores.detach().double().cpu().sigmoid() - 0.5).abs().numpy()
            return (margin <= self._slack) & np.isin(prediction, (0, 1))
        p = class_probabilities(scores).numpy()
        inside = (prediction >= 0) & (prediction < p.shape[1])
        said = p[np.arange(len(p)), np.where(inside, prediction, 0)]
        return inside & (p.max(1) - said <= self._slack)

    def _note(self, kind: str, bad: np.ndarray, samples: np.ndarray) -> None:
        """Samples [n] where something is wrong, or where it is for some of their classes [n, K]."""
        if bad.any():
            rows = np.unique(np.nonzero(bad)[0])
            self._wrong.setdefault(kind, []).extend(samples[rows].tolist())

    def verdict(self) -> Check:
        if self._wrong:
            kinds = [f"{kind} of sample {found[0]}" for kind, found in self._wrong.items()]
            count = len(set().union(*self._wrong.values()))
            more = f" ({count} samples)" if count > 1 else ""
            return Check("outcomes", ok=False, detail=f"wrong: {', '.join(kinds)}{more}")
        how = "bit for bit" if self.exact else "within the rounding of other software"
        return Check("outcomes", ok=True, detail=f"of {self._checked} samples recomputed {how}")
