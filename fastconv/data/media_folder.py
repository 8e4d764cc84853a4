"""A folder of pictures, scans, volumes, sounds or videos as a data set."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from fastconv.data.formats import SUFFIXES
from fastconv.data.listing import listing
from fastconv.data.media import MediaDataset, Source
from fastconv.errors import DataError


class MediaFolder(MediaDataset):
    """The files of a folder in order of their names; docs/data.md has all formats.

    Sub-folders are read, too: those of the first level are the classes, and a label is the place
    of its name in order. A folder without sub-folders has no labels.

    Args:
        root: the folder.
        options: of `MediaDataset`.

    Attributes:
        keys: path of each sample inside the folder, with forward slashes.
        labels: class number of each sample, or None.
        classes: name of each class, or None.

    Raises:
        DataError: no such folder, or nothing in it that can be read.
        InputError: an option out of its range, or a format whose package is not installed.
    """

    def __init__(self, root: str | os.PathLike[str], **options: Any):
        super().__init__(**options)
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}")
        self._listing = found = listing(self.root)
        if not found.keys:
            raise DataError(f"no images in {self.root}, nor other files: {' '.join(SUFFIXES)}")
        for remark in found.remarks:
            warnings.warn(remark, stacklevel=2)
        self.keys, self.labels, self.classes = found.keys, found.labels, found.classes or None
        self._settle(i for i, format in enumerate(found.formats) if format.name == "audio")

    def source(self, index: int) -> Source:
        file, page = self._listing.place(index)
        return self._listing.formats[index], self.root / file, page
