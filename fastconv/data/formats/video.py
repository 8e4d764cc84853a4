"""Videos, read with PyAV: the frames of the first stream, `[3, T, H, W]`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import numpy as np

from fastconv.data.formats import File, ReadAs, Stored, full_range
from fastconv.errors import DataError


def read(file: File, index: int, how: ReadAs) -> Stored:
    """Every frame, or so many evenly spaced ones; no others are held."""
    del index
    chosen = None
    if how.frames is not None:
        total = _length(file)
        chosen = np.linspace(0, total - 1, how.frames).round().astype(int)
    frames = []
    with _opened(file) as container:
        for number, frame in enumerate(container.decode(video=0)):
            times = 1 if chosen is None else int((chosen == number).sum())
            frames += [_pixels(frame, how)] * times
            if chosen is not None and number >= chosen[-1]:
                break
    if not frames:
        raise DataError("it has no frames")
    return full_range(np.stack(frames, 1))


def _length(file: File) -> int:
    with _opened(file) as container:
        known = container.streams.video[0].frames
        return known or sum(1 for _ in container.decode(video=0))


def _opened(file: File) -> Any:
    if not isinstance(file, Path):
        file.seek(0)
    container = av.open(os.fspath(file) if isinstance(file, Path) else file)
    if not container.streams.video:
        container.close()
        raise DataError("it has no pictures")
    return container


def _pixels(frame: av.VideoFrame, how: ReadAs) -> np.ndarray:
    """[3, H, W] uint8, turned upright as players do unless wanted as stored."""
    pixels = frame.to_ndarray(format="rgb24")
    if how.upright:
        pixels = np.rot90(pixels, round(frame.rotation / 90))  # counter-clockwise, both
    return np.moveaxis(pixels, -1, 0)
