"""The input, the label and the columns of one sample, in whatever form it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fastconv.data.tensors import is_array, is_input
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
    """What has a usual name; else the array of most dimensions."""
    usual = [sample[name] for name in INPUT_NAMES if name in sample]
    named = next(filter(is_input, usual), None)
    if named is not None:
        return named
    arrays = {k: v for k, v in sample.items() if is_array(v) and k not in LABEL_NAMES}
    if not arrays:
        if usual:
            return usual[0]  # a PIL picture, say
        raise DataError(f"is not in its dict: no array under {', '.join(map(str, sample))}")
    most = max(value.ndim for value in arrays.values())
    highest = [key for key, value in arrays.items() if value.ndim == most]
    if len(highest) > 1:
        several = ", ".join(f"{key} {list(arrays[key].shape)}" for key in highest)
        raise DataError(
            f"may be one of several arrays of a dict: {several}; "
            "name one of them 'x' or 'image', or give (input, label)"
        )
    return arrays[highest[0]]


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
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise DataError(f"is {value}, which does not fit into 64 bits; give a text")
    if value is None or isinstance(value, int | float | str):
        return value
    raise DataError(f"is a {type(value).__name__}; it must be one number or text")
