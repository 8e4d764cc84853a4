"""The filters of the same layer that are most alike."""

from __future__ import annotations

import numpy as np
import torch

from fastconv.export.report.budget import NEAREST_OPERATIONS
from fastconv.store.reader import Layer

COUNT = 6
_SAMPLES = 4096  # responses that are compared, from all over the data set


def nearest(layer: Layer, layers: int) -> dict[str, np.ndarray] | None:
    """The most similar filters [C, n] and their similarity, by responses, else by weights.

    Responses: the correlation of the samples' maxima. Weights: the cosine.

    Args:
        layers: how many layers share the time for it.
    """
    vectors = _vectors(layer)
    if vectors is None or len(vectors) < 2:
        return None
    filters, length = vectors.shape
    if filters * filters * length > NEAREST_OPERATIONS / layers:
        return None
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = torch.from_numpy(vectors / np.where(norm > 0, norm, 1))
    alike = (unit @ unit.T).fill_diagonal_(-2)
    found = alike.topk(min(COUNT, filters - 1), dim=1)
    return {"filter": found.indices.numpy(), "similarity": found.values.numpy()}


def _vectors(layer: Layer) -> np.ndarray | None:
    """[C, length] float32."""
    if "samples" in layer.holds and (maxima := layer.samples.max) is not None:
        step = max(1, len(maxima) // _SAMPLES)
        chosen = maxima[::step][:_SAMPLES].T.astype(np.float32)
        chosen = chosen[:, np.isfinite(chosen).any(axis=0)]
        chosen = np.where(np.isfinite(chosen), chosen, 0)
        if chosen.shape[1] > 2:
            return np.ascontiguousarray(chosen - chosen.mean(axis=1, keepdims=True))
    weight = layer.weight
    if weight is None:
        return None
    return np.nan_to_num(weight.reshape(len(weight), -1).astype(np.float32))
