"""Names of the samples and of the classes of a map-style data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset

from fastconv.data.input_and_label import LABEL_NAMES


def keys_of(dataset: Any) -> list[str] | None:
    """One name per sample, from `keys`, `samples` or `imgs`; None where they do not fit."""
    if isinstance(dataset, Subset):
        inner = keys_of(dataset.dataset)
        return None if inner is None else [inner[i] for i in dataset.indices]
    for name in ("keys", "samples", "imgs"):
        found = getattr(dataset, name, None)
        if not isinstance(found, list | tuple) or len(found) != len(dataset):
            continue
        names = [f[0] if isinstance(f, tuple | list) and f else f for f in found]
        if all(isinstance(key, str | Path) for key in names):
            root = getattr(dataset, "root", None)
            return [_inside(key, root) for key in names]
    return None


def classes_of(dataset: Any) -> list[str] | None:
    """The name of every label, from `classes`, or as Hugging Face data sets have them."""
    if isinstance(dataset, Subset):
        return classes_of(dataset.dataset)
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        label = next((features[name] for name in LABEL_NAMES if name in features), None)
        found = getattr(label, "names", None)
    else:
        found = getattr(dataset, "classes", None)
    if not isinstance(found, list | tuple | np.ndarray):
        return None
    names = [", ".join(map(str, n)) if isinstance(n, tuple) else n for n in found]  # of ImageNet
    return list(map(str, names)) if all(isinstance(name, str) for name in names) else None


def _inside(key: str | Path, root: Any) -> str:
    """The key as a path inside its folder, where it is one."""
    path = Path(key)
    if isinstance(root, str | Path) and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return os.fspath(key)
