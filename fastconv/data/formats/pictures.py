"""Pictures, read with Pillow: grey `[1, H, W]` or colour `[3, H, W]`, alpha left out."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from fastconv.data.formats import File, ReadAs, Stored, full_range


def read(file: File, index: int, how: ReadAs) -> Stored:
    """One picture, turned upright by its EXIF orientation unless wanted as stored."""
    with Image.open(file) as image:
        if index:
            image.seek(index)
        return stored(image, how)


def stored(image: Image.Image, how: ReadAs) -> Stored:
    """The pixels of an opened picture at their full depth."""
    if how.upright:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)[None]
        if image.mode == "I" and image.format != "TIFF":  # 16 bits, as PNG and PGM have them
            values = values.astype(np.uint16)
        return full_range(values)
    grey = image.mode in ("1", "L", "LA")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return full_range(pixels[None] if grey else np.moveaxis(pixels, -1, 0))
