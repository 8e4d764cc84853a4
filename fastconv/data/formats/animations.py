"""GIF and WebP, read with Pillow: every frame is a sample."""

from __future__ import annotations

from PIL import Image

from fastconv.data.formats import File
from fastconv.data.formats.pictures import read

__all__ = ["count", "read"]


def count(file: File) -> int:
    """The number of frames."""
    with Image.open(file) as image:
        return getattr(image, "n_frames", 1)
