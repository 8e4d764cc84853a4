"""A batch as a model takes it: one tensor, or a tuple, list or dict of tensors, nested at will."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def tensors_in(value: object) -> list[Tensor]:
    """Every tensor, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_in(v)]
    return []


def single_tensor(value: object) -> Tensor | None:
    """A tensor, or the only tensor in a tuple, list or dict."""
    found = tensors_in(value)
    return found[0] if len(found) == 1 else None


def map_tensors(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A batch of the same form with every tensor replaced."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(value, function) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        mapped = [map_tensors(value, function) for value in batch]
        return mapped if isinstance(batch, list) else tuple(mapped)
    return batch


def first_tensor(batch: Any) -> Tensor:
    """The picture that boxes refer to: [n, C, *spatial], or a waveform [n, samples]."""
    return tensors_in(batch)[0]


def with_first(batch: Any, tensor: Tensor) -> Any:
    """The batch with another picture."""
    replaced = first_tensor(batch)
    return map_tensors(batch, lambda t: tensor if t is replaced else t)


def picture(batch: Any) -> Tensor:
    """The picture as [n, C, *spatial]; the one channel of a waveform is added."""
    tensor = first_tensor(batch)
    return tensor.unsqueeze(1) if tensor.ndim == 2 else tensor


def rows_of(batch: Any, rows: slice) -> Any:
    """Some samples of a batch."""
    return map_tensors(batch, lambda t: t[rows])
