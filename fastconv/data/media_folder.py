"""A folder of pictures, scans, volumes, sounds or videos as a data set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from fastconv.data.formats import SUFFIXES, ReadAs, Stored
from fastconv.data.listing import Entry, listing
from fastconv.data.preparation import Preparation
from fastconv.errors import DataError, InputError


class MediaFolder(Dataset):
    """Files in order of their names, as float32 `[C, *spatial]`; docs/data.md has all formats.

    Sub-folders are read, too: those of the first level are the classes, and a label is the place
    of its name in order. A folder without sub-folders has no labels.

    Args:
        root: the folder.
        size: of each spatial dimension, or one number for all; None leaves samples as they are.
        fit: how they come to that size: "cover" (default: pictures are resized, keeping their
            proportions, until they cover it, and the centre is cut out), "crop", "pad" or "resize";
            without a size, to that of the first sample.
        mean: subtracted from the channels, after the scaling to [0, 1].
        std: then divides them.
        value_range: (low, high) of the stored values that become 0 and 1; default the range of an
            integer dtype.
        channels: of every sample; default 3 for pictures and videos, else as stored.
        as_stored: leave pixels as stored, not turned as their EXIF orientation says.
        frames: take so many evenly spaced frames of a video; default all.

    Attributes:
        keys: path of each sample inside the folder, with forward slashes.
        labels: class number of each sample, or None.

    Raises:
        DataError: no such folder, or nothing in it that can be read.
        InputError: an option out of its range, or a format whose package is not installed.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        fit: str | None = None,
        value_range: Sequence[float] | None = None,
        channels: int | None = None,
        as_stored: bool = False,
        frames: int | None = None,
    ):
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}")
        if frames is not None and frames < 1:
            raise InputError(f"frames must be at least 1, got {frames}")
        self.prepare = Preparation.create(
            range=value_range, size=size, fit=fit, channels=channels, mean=mean, std=std
        )
        self.how = ReadAs(not as_stored, value_range is None, frames)
        found = listing(self.root)
        if not found.entries:
            raise DataError(f"no images in {self.root}, nor other files: {' '.join(SUFFIXES)}")
        for remark in found.remarks:
            warnings.warn(remark, stacklevel=2)
        self.entries = found.entries
        self.keys = [entry.key for entry in self.entries]
        self.labels = [entry.label for entry in self.entries] if found.labelled else None
        self._rate: float | None = None
        self._settle()

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        entry = self.entries[index]
        try:
            stored = self._stored(entry)
            if stored.rate not in (None, self._rate):
                raise DataError(
                    f"it has {stored.rate} samples a second, others have {self._rate}; "
                    "bring them to one rate"
                )
            x = self.prepare(stored, entry.format.fitted)
        except DataError as error:
            raise DataError(f"{entry.key}: {error}") from error
        return x if entry.label is None else (x, entry.label)

    def preparation(self) -> dict[str, Any]:
        """What is done to the files, as plain values: only what differs from the default."""
        how = {"as_stored": not self.how.upright, "frames": self.how.frames}
        return self.prepare.as_dict() | {k: v for k, v in how.items() if v}

    def _stored(self, entry: Entry) -> Stored:
        return entry.format.module().read(self.root / entry.file, entry.page, self.how)

    def _settle(self) -> None:
        """Take the rate of the first sound, and if need be the size of the first sample."""
        by_first = self.prepare.fit is not None and self.prepare.size is None
        sounds = [e for e in self.entries if e.format.name == "audio"]
        for entry in self.entries if by_first else sounds:
            try:
                stored = self._stored(entry)
            except Exception:  # noqa: BLE001 - libraries raise what they like; reading it will say
                continue
            self._rate = stored.rate
            if by_first:
                size = stored.values.shape[-entry.format.fitted :]
                self.prepare = replace(self.prepare, size=size)
            return
