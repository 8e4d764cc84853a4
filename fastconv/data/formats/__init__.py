"""File formats by suffix: which reader takes a file, and what it gives."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NamedTuple

import numpy as np

from fastconv.errors import InputError

File = Path | BinaryIO


class Stored(NamedTuple):
    """One sample as its file holds it."""

    values: np.ndarray  # [C, *spatial]
    low: float  # the value that becomes 0
    high: float  # the value that becomes 1
    rate: float | None = None  # samples a second of a sound


@dataclass(frozen=True)
class ReadAs:
    """How files are read that could be read in more than one way."""

    upright: bool = True  # turned as viewers turn it; False: pixels as stored
    windowed: bool = True  # DICOM through its window; False: in the unit of its modality
    frames: int | None = None  # so many of a video, evenly spaced; None: all


def full_range(values: np.ndarray) -> Stored:
    """Scaled by the range of an integer dtype; numbers with a point are left as they are."""
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        return Stored(values, float(limits.min), float(limits.max))
    return Stored(values, 0.0, 1.0)


@dataclass(frozen=True)
class Format:
    """Files of some suffixes.

    Their module has `read(file, index, how) -> Stored`, and where one file may hold several
    samples, `count(file) -> int`.
    """

    name: str  # of the module, too
    suffixes: tuple[str, ...]
    fitted: int  # dimensions that a size is for: the last ones; 0: all after the channels
    package: str = ""  # that is needed, and which extra brings it
    extra: str = ""
    several: bool = False

    def module(self) -> ModuleType:
        """The module that reads these files.

        Raises:
            InputError: the package that it needs is not installed.
        """
        try:
            return importlib.import_module(f"{__name__}.{self.name}")
        except ModuleNotFoundError as error:
            raise InputError(
                f"{self.suffixes[0]} files need {self.package}: "
                f"pip install 'fastconv[{self.extra}]' ({error})"
            ) from error


FORMATS = (
    Format("pictures", (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm"), 2),
    Format("animations", (".gif", ".webp"), 2, several=True),
    Format("tiff", (".tif", ".tiff"), 2, several=True),
    Format("dicom", (".dcm", ".dicom"), 2, "pydicom", "medical", several=True),
    Format("nifti", (".nii", ".nii.gz"), 3, "nibabel", "medical", several=True),
    Format("arrays", (".npy",), 0),
    Format("audio", (".wav", ".flac", ".ogg"), 1, "soundfile", "audio"),
    Format("video", (".mp4", ".avi", ".mov", ".mkv", ".webm"), 2, "PyAV", "video"),
)
_BY_SUFFIX = {suffix: format for format in FORMATS for suffix in format.suffixes}
SUFFIXES = tuple(_BY_SUFFIX)


def format_of(name: str) -> Format | None:
    """By the suffix of a file's name."""
    name = name.lower()
    suffix = "nii.gz" if name.endswith(".nii.gz") else name.rpartition(".")[2]
    return _BY_SUFFIX.get(f".{suffix}")


def format_of_content(path: Path) -> Format | None:
    """By what is in a file without a suffix: DICOM files often have none."""
    with path.open("rb") as file:
        return _BY_SUFFIX[".dcm"] if file.read(132)[128:] == b"DICM" else None
