"""A folder of images as a data set: flat, or one folder a class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from fastconv.errors import DataError, InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


class ImageFolder(Dataset):
    """Images in order of their names, decoded to RGB, float32 `[3, H, W]` in [0, 1].

    A folder with images is read flat and has no labels; otherwise each sub-folder is a class, and
    a label is the place of its name in order.

    Args:
        root: the folder.
        size: resize the shorter side to so many pixels (bilinear, antialiased) and crop the
            centre to size x size; None leaves every image as it is.
        mean: subtracted from the channels, after the scaling to [0, 1].
        std: then divides them.

    Attributes:
        keys: path of each image inside the folder, with forward slashes.
        labels: class number of each image, or None.

    Raises:
        DataError: no such folder, or no image in it.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        self.root, self.size = Path(root), size
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}")
        if size is not None and size < 1:
            raise InputError(f"size must be at least 1 pixel, got {size}")
        self.mean = _per_channel("mean", mean, 0.0)
        self.std = _per_channel("std", std, 1.0)
        if (self.std == 0).any():
            raise InputError("std must not be 0")
        self.keys, self.labels = _listing(self.root)
        if not self.keys:
            raise DataError(f"no images in {self.root}: looked for {' '.join(SUFFIXES)}")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        with Image.open(self.root / self.keys[index]) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{self.keys[index]} holds more than 8 bits a channel (mode {image.mode}); "
                    "convert it to 8 bits, or give the pixels as an .npy array"
                )
            picture = image.convert("RGB")
        if self.size is not None:
            picture = _fit(picture, self.size)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # [3, H, W] uint8
        x = (pixels / 255 - self.mean) / self.std
        return x if self.labels is None else (x, self.labels[index])


def _listing(root: Path) -> tuple[list[str], list[int] | None]:
    """Paths relative to the root, and labels unless the folder is flat."""
    flat = _images(root)
    if flat:
        return [p.name for p in flat], None
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [(p, label) for label, folder in enumerate(classes) for p in _images(folder)]
    return [p.relative_to(root).as_posix() for p, _ in found], [label for _, label in found]


def _images(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def _fit(picture: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, then the centre square."""
    width, height = picture.size
    scale = size / min(width, height)
    wide, high = max(size, int(width * scale)), max(size, int(height * scale))
    picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return picture.crop((left, top, left + size, top + size))


def _per_channel(name: str, values: Sequence[float] | None, default: float) -> Tensor:
    values = [default] * 3 if values is None else list(values)
    if len(values) not in (1, 3):
        raise InputError(f"{name} must be 1 or 3 numbers, got {len(values)}")
    return torch.tensor(values * (3 // len(values)), dtype=torch.float32).reshape(3, 1, 1)
