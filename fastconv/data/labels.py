"""Labels of samples: the index of a class, or for every class whether it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.data.tensors import as_tensor
from fastconv.errors import DataError

MISSING = -1


def class_index(value: Any) -> int | None:
    """A label as int, or None for anything else."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        labels = class_indices(value.reshape(-1), 1)
        return None if labels is None else int(labels)
    return int(value) if isinstance(value, int) else None


def class_indices(value: Any, n: int) -> Tensor | None:
    """Integer labels int64 [n], or None for anything else."""
    if isinstance(value, list | tuple) and value and all(isinstance(v, int) for v in value):
        value = torch.tensor(value)
    if not isinstance(value, Tensor | np.ndarray):
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind not in "iub":
        return None
    labels = as_tensor(value)
    if (
        labels.is_floating_point()
        or labels.is_complex()
        or tuple(labels.shape) not in {(n,), (n, 1)}
    ):
        return None
    return labels.reshape(n).long().cpu()


def truth(value: Any) -> Tensor | None:
    """0 or 1, or a vector of them, as int64 [] or [K]; None for what is not made of numbers.

    Raises:
        DataError: another number; the message goes on from "the label of sample 3".
    """
    numbers = _numbers(value, 1)
    found = None if numbers is None else truths(numbers[None], 1)
    return None if found is None else found[0]


def truths(value: Any, n: int) -> Tensor | None:
    """0 and 1 for each of n samples as int64 [n] or [n, K], -1 where missing (-1 or NaN).

    None for what is not made of numbers [n] or [n, K].

    Raises:
        DataError: another number; the message goes on from "the label of sample 3".
    """
    numbers = _numbers(value, 2)
    if numbers is None or numbers.shape[:1] != (n,) or 0 in numbers.shape[1:]:
        return None
    values = np.where(np.isnan(numbers), MISSING, numbers)
    wrong = values[~np.isin(values, (MISSING, 0, 1))]
    if len(wrong):
        whole = " (an integer: y.long())" if wrong[0] % 1 == 0 else ""
        raise DataError(
            f"has the value {wrong[0]:g}; a label is the integer index of a class{whole}, or a "
            "vector of 0 and 1, one a class (-1 or NaN: missing); leave other targets out of the "
            "samples"
        )
    found = torch.from_numpy(values.astype(np.int64))
    return found.reshape(n) if found.shape[1:] == (1,) else found


def _numbers(value: Any, dimensions: int) -> np.ndarray | None:
    """Numbers of any form as float64; None for anything else, or of more dimensions."""
    if getattr(value, "ndim", 0) > dimensions:  # such as a picture of labels
        return None
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and not value.is_complex() and not value.is_nested
        return value.detach().cpu().double().numpy() if dense else None
    if isinstance(value, list | tuple):
        if not value or not all(map(_is_number, value)):
            return None
        value = [float(v) for v in value]
    elif not isinstance(value, bool | int | float | np.generic | np.ndarray):
        return None
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "fiub" else None


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 0
    return isinstance(value, bool | int | float | np.bool_ | np.number)
