"""NIfTI, read with nibabel: a volume `[1, X, Y, Z]`; each of a series is a sample."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from fastconv.data.formats import File, ReadAs, Stored
from fastconv.errors import DataError

_GZIP = b"\x1f\x8b"


def count(file: File) -> int:
    """The number of volumes: of the fourth and later axes."""
    return math.prod(_image(file).shape[3:])


def read(file: File, index: int, how: ReadAs) -> Stored:
    """One volume: voxels in stored order, slope and intercept applied, scaled no further."""
    del how
    image = _image(file)
    if len(image.shape) < 3:
        raise DataError(f"it has the shape {list(image.shape)}, not that of a volume [X, Y, Z]")
    at = np.unravel_index(index, image.shape[3:], order="F") if image.shape[3:] else ()
    volume = np.asarray(image.dataobj[(..., *(int(i) for i in at))])  # read alone
    if volume.dtype.kind not in "iufb":
        raise DataError(f"its voxels are {volume.dtype}, not real numbers")
    return Stored(volume.astype(np.float32)[None], 0.0, 1.0)


def _image(file: File) -> Any:
    if isinstance(file, Path):
        return nibabel.load(file)
    data = file.read()
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data) if data[:2] == _GZIP else data)
