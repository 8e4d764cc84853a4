"""Sounds, read with soundfile: `[channels, T]` float32, full scale is -1 ... 1."""

from __future__ import annotations

import soundfile

from fastconv.data.formats import File, ReadAs, Stored


def read(file: File, index: int, how: ReadAs) -> Stored:
    """The whole sound at its own rate."""
    del index, how
    sound, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return Stored(sound.T, 0.0, 1.0, rate=rate)
