"""DICOM, read with pydicom: every frame is a sample, grey `[1, H, W]` or colour `[3, H, W]`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

from fastconv.data.formats import File, ReadAs, Stored, full_range


def count(file: File) -> int:
    """The number of frames."""
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
    return int(header.get("NumberOfFrames") or 1)


def read(file: File, index: int, how: ReadAs) -> Stored:
    """One frame, in the unit of its modality (Hounsfield, say), through its first window.

    A window goes from 0 to 1; without one, the range of the stored bits does. MONOCHROME1, where
    low values are bright, is turned over.
    """
    header = pydicom.dcmread(file, stop_before_pixels=True)
    if not isinstance(file, Path):
        file.seek(0)
    pixels = pixel_array(file, index=index)
    if int(header.SamplesPerPixel) > 1:
        return full_range(np.moveaxis(pixels, -1, 0))
    values = apply_modality_lut(pixels, header)
    low, high = _range(header)
    if how.windowed:
        windowed = apply_voi_lut(values, header)
        if header.get("VOILUTSequence") and windowed is not values:
            low, high = 0.0, 2.0 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
        values = windowed
    if header.PhotometricInterpretation == "MONOCHROME1":
        low, high = high, low
    return Stored(values[None], low, high)


def _range(header: pydicom.Dataset) -> tuple[float, float]:
    """The lowest and the highest value that the stored bits can stand for."""
    if header.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** header.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    bits, signed = int(header.BitsStored), int(header.PixelRepresentation)
    lowest = -(2 ** (bits - 1)) if signed else 0
    slope = float(header.get("RescaleSlope", 1))
    intercept = float(header.get("RescaleIntercept", 0))
    low, high = (v * slope + intercept for v in (lowest, lowest + 2**bits - 1))
    return low, high
