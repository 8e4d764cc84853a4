"""Small real files of every format that folders may hold, and the values that were put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def shades(*shape: int, dtype: Any = np.uint16, high: float = 65535) -> np.ndarray:
    """A ramp from 0 to `high`, without symmetry."""
    return np.linspace(0, high, int(np.prod(shape))).reshape(shape).astype(dtype)


def write_dicom(path: Path, pixels: np.ndarray, **tags: Any) -> None:
    """CT-like: `pixels` [H, W] or [frames, H, W] int16 or uint16."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def write_video(path: Path, frames: np.ndarray, codec: str = "libx264rgb") -> None:
    """Frames [T, H, W, 3] uint8, without loss by the default codec."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24" if codec.endswith("rgb") else "yuv420p"
        if codec.endswith("rgb"):
            stream.options = {"qp": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
