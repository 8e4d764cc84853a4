"""The input and the label of one sample, in whatever form the data set gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fastconv.data.samples import batch_labels
from fastconv.errors import DataError

INPUT_NAMES = (
    *("x", "image", "images", "img", "input", "inputs", "data", "pixel_values", "picture"),
    *("input_values", "input_features", "audio", "waveform", "wave", "signal", "spectrogram"),
    *("video", "clip", "frames", "volume", "scan", "png", "jpg", "jpeg", "webp", "tif", "tiff"),
    *("npy", "wav", "flac", "mp4"),
)
LABEL_NAMES = ("y", "label", "labels", "target", "targets", "cls", "class")


def input_and_label(sample: Any) -> tuple[Any, Any]:
    """Split `x`, `(x, y, ...)` or a dict.

    Raises:
        DataError: a dict with several arrays that may be the input, or none; the message goes on
            from "the input of sample 3".
    """
    if isinstance(sample, Mapping):
        label = next((sample[name] for name in LABEL_NAMES if name in sample), None)
        return _input_of(sample), label
    if isinstance(sample, tuple | list) and sample:
        return sample[0], sample[1] if len(sample) > 1 else None
    return sample, None


def _input_of(sample: Mapping[Any, Any]) -> Any:
    """The array under a usual name; else the one of most dimensions; else what has such a name."""
    arrays = {
        key: value
        for key, value in sample.items()
        if isinstance(value, Tensor | np.ndarray) and key not in LABEL_NAMES
    }
    for entries in (arrays, sample):
        for name in INPUT_NAMES:
            if name in entries:
                return entries[name]
        if entries is arrays and arrays:
            most = max(value.ndim for value in arrays.values())
            widest = [key for key, value in arrays.items() if value.ndim == most]
            if len(widest) == 1:
                return arrays[widest[0]]
            several = ", ".join(f"{key} {list(arrays[key].shape)}" for key in widest)
            raise DataError(
                f"may be one of several arrays of a dict: {several}; "
                "name one of them 'x' or 'image', or give (input, label)"
            )
    raise DataError(f"is not in its dict: no array under {', '.join(map(str, sample))}")


def column_of(sample: Any, name: str) -> int | float | str | None:
    """A number or text in the dict that a sample is, or that is part of a tuple.

    Raises:
        DataError: it is not there, or something else; the message goes on from "column 'site' of
            sample 3".
    """
    parts = sample if isinstance(sample, tuple | list) else (sample,)
    dicts = [part for part in parts if isinstance(part, Mapping)]
    holder = next((part for part in dicts if name in part), None)
    if holder is None:
        known = ", ".join(str(key) for part in dicts for key in part)
        raise DataError(f"is missing: the sample has {known or 'no dict'}")
    value = holder[name]
    if isinstance(value, Tensor | np.ndarray | np.generic) and np.prod(value.shape) == 1:
        value = value.item()
    if value is None or isinstance(value, int | float | str):
        return value
    raise DataError(f"is a {type(value).__name__}; it must be one number or text")


def no_array(value: Any) -> str:
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


def integer(value: Any) -> int | None:
    """A label as int, or None for anything else."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        labels = batch_labels(value.reshape(-1), 1)
        return None if labels is None else int(labels)
    return int(value) if isinstance(value, int) else None
