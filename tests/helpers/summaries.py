"""Runs in memory, of summaries that a test gives: what the tables read, and nothing else."""

from types import SimpleNamespace

import numpy as np


class Run:
    """`layers` maps a name to [N, C], or to several conditions of it, the unchanged one first."""

    def __init__(self, layers, labels=None, outcomes=None, skipped=(), classes=None, columns=None):
        self._layers = {
            name: {"": found} if isinstance(found, np.ndarray) else found
            for name, found in layers.items()
        }
        first = next(iter(self._layers.values()))
        self.layers = list(layers)
        self.conditions = tuple(name for name in first if name)
        self.samples = SimpleNamespace(
            count=len(first[""]), labels=labels, skipped=list(skipped), keys=None
        )
        self.outcomes, self.classes, self.columns = outcomes, classes, columns or {}

    def __getitem__(self, name):
        found = self._layers[name]
        layer = _layer(found[""])
        layer.condition = lambda condition: _layer(found[condition])
        return layer


def _layer(values, k=9):
    values = np.asarray(values, np.float32)
    hits = np.argsort(-values, axis=0, kind="stable")[:k].T
    return SimpleNamespace(
        samples=SimpleNamespace(max=values, mean=values / 2),
        topk=SimpleNamespace(sample=hits.astype(np.int64)),
    )


def outcomes(label, prediction, confidence=None):
    label, prediction = np.asarray(label), np.asarray(prediction)
    confidence = np.linspace(0.5, 1, len(label)) if confidence is None else confidence
    return {
        "label": label.astype(np.int64),
        "prediction": prediction.astype(np.int64),
        "confidence": np.asarray(confidence, np.float32),
        "correct": (label == prediction).astype(np.uint8),
    }
