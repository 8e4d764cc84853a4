"""Samples brought to one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastconv.errors import DataError, InputError

FITS = ("cover", "crop", "pad", "resize")
_KINDS = {1: "sounds", 2: "pictures", 3: "volumes"}


def fit(values: np.ndarray, size: tuple[int, ...], how: str, padding: float) -> np.ndarray:
    """Bring the last dimensions of an array to `size`.

    Args:
        values: [..., *spatial], with as many spatial dimensions as `size` has.
        size: the size wanted.
        how: "cover": resized until it covers the size, keeping its proportions, then the centre cut
            out; "crop": the centre cut out; "pad": filled up at the end of each dimension;
            "resize": stretched. Pictures are resized bilinearly with antialiasing.
        padding: the value that "pad" fills up with.

    Raises:
        DataError: smaller than what is to be cut out, or larger than what is to be filled up.
        InputError: sounds can only be cut or filled up, volumes not cover.
    """
    given = values.shape[-len(size) :]
    if given == size:
        return values
    if how == "resize" or how == "cover":
        return _resized(values, size, how)
    wrong = [a < b if how == "crop" else a > b for a, b in zip(given, size, strict=True)]
    if any(wrong):
        other, than = ("pad", "smaller") if how == "crop" else ("crop", "larger")
        raise DataError(
            f"its size {list(given)} is {than} than {list(size)}: give another size, or fit {other}"
        )
    return _centre(values, size) if how == "crop" else _padded(values, size, padding)


def _resized(values: np.ndarray, size: tuple[int, ...], how: str) -> np.ndarray:
    kind = _KINDS[len(size)]
    if len(size) == 1 or (len(size) == 3 and how == "cover"):
        instead = "crop or pad" if len(size) == 1 else "crop, pad or resize"
        raise InputError(f"{kind} do not fit by {how}: give --fit {instead}")
    if len(size) == 3:
        x = torch.from_numpy(values.astype(np.float32))
        return F.interpolate(x[None], size, mode="trilinear")[0].numpy()
    if how == "resize":
        return _resampled(values, size)
    high, wide = values.shape[-2:]
    scale = max(size[0] / high, size[1] / wide)
    covering = (max(size[0], int(high * scale)), max(size[1], int(wide * scale)))
    return _centre(_resampled(values, covering), size)


def _resampled(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """By Pillow, 8-bit colour as one picture, else plane by plane; uint8 or float32."""
    high, wide = size
    if values.dtype == np.uint8 and values.ndim == 3 and len(values) == 3:
        colours = Image.fromarray(np.ascontiguousarray(np.moveaxis(values, 0, -1)))
        resized = np.asarray(colours.resize((wide, high), Image.Resampling.BILINEAR))
        return np.moveaxis(resized, -1, 0)
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
    planes = np.ascontiguousarray(values).reshape(-1, *values.shape[-2:])
    resized_planes = [
        np.asarray(Image.fromarray(plane).resize((wide, high), Image.Resampling.BILINEAR))
        for plane in planes
    ]
    return np.stack(resized_planes).reshape(*values.shape[:-2], *size)


def _centre(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    starts = [round((a - b) / 2) for a, b in zip(values.shape[-len(size) :], size, strict=True)]
    cut: list[Any] = [slice(start, start + n) for start, n in zip(starts, size, strict=True)]
    return values[(..., *cut)]


def _padded(values: np.ndarray, size: tuple[int, ...], padding: float) -> np.ndarray:
    kept = [(0, 0)] * (values.ndim - len(size))
    grown = [(0, b - a) for a, b in zip(values.shape[-len(size) :], size, strict=True)]
    return np.pad(values, kept + grown, constant_values=padding)
