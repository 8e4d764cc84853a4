"""Inputs and labels as tensors: one, or several as a tuple or a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.capture.batch import map_tensors, tensors_in
from fastconv.errors import DataError

Inputs = Any  # Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def as_inputs(value: Any) -> Inputs:
    """Tensors of an array, or of a tuple or dict of arrays that a model takes together.

    Raises:
        DataError: anything else; the message goes on from "the input".
    """
    if is_array(value) or not is_input(value):
        return as_tensor(value)
    if isinstance(value, Mapping):
        return {name: as_inputs(part) for name, part in value.items()}
    return tuple(as_inputs(part) for part in value)


def stacked(samples: list[Inputs]) -> Inputs:
    """The batch of some samples of one form."""
    first = samples[0]
    if isinstance(first, Tensor):
        return torch.stack(samples)
    if isinstance(first, dict):
        return {name: stacked([sample[name] for sample in samples]) for name in first}
    return tuple(stacked(list(parts)) for parts in zip(*samples, strict=True))


def is_array(value: Any) -> bool:
    """Whether it can become a tensor, if its dtype allows."""
    return isinstance(value, Tensor | np.ndarray)


def is_input(value: Any) -> bool:
    """Whether it is an array, a list of arrays, or a tuple or dict of such inputs."""
    if isinstance(value, list):
        return len(value) > 0 and all(map(is_array, value))
    if isinstance(value, Mapping | tuple):
        parts = value.values() if isinstance(value, Mapping) else value
        return len(value) > 0 and all(map(is_input, parts))
    return is_array(value)


def as_tensor(value: Any) -> Tensor:
    """A dense tensor of real numbers on the same memory, where torch can use it.

    Raises:
        DataError: no array, other kinds of tensors, and dtypes that torch lacks; the message goes
            on from "the input".
    """
    if not is_array(value) and not hasattr(value, "toarray"):
        raise DataError(_no_array(value))
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_nested:
            raise DataError("is sparse or nested, not a dense tensor; use .to_dense()")
        if value.is_meta:
            raise DataError("is a meta tensor, without values")
        return value.detach()
    if hasattr(value, "toarray"):
        raise DataError("is a sparse array, not a dense one; use .toarray()")
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise DataError(f"must be an array of real numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise DataError(f"is {array.dtype}, which torch lacks; use .astype(np.float32)")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    usable = array.flags.writeable and min(array.strides, default=0) >= 0  # by torch, as it is
    return torch.from_numpy(array if usable else array.copy())


def _no_array(value: Any) -> str:
    """Why a value cannot be an input, and what makes one of it."""
    kind = type(value).__name__
    if hasattr(value, "getbands"):
        return (
            "is a PIL picture, not a tensor [C, H, W]; add torchvision.transforms.v2.ToImage() "
            "and ToDtype(torch.float32, scale=True) to the transform of the data set"
        )
    if isinstance(value, list):
        return (
            "is a list, not a tensor [C, ...]; give tensors "
            "(of a Hugging Face data set: data.with_format('torch'))"
        )
    return f"is a {kind}, not a tensor [C, ...]; give the data set a transform that makes one"


def prepared(x: Inputs) -> Inputs:
    """As the model reads it: integers and booleans as float32."""
    return map_tensors(x, lambda t: t if t.is_floating_point() or t.is_complex() else t.float())


def bytes_of(inputs: Inputs) -> bytes:
    """The values, for hashes and comparisons."""
    parts = [t.cpu().contiguous().reshape(-1).view(torch.uint8) for t in tensors_in(inputs)]
    return b"".join(part.numpy().tobytes() for part in parts)


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
