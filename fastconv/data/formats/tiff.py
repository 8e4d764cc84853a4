"""TIFF: every page is a sample; Pillow reads what it keeps at full depth, tifffile the rest."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastconv.data.formats import File, ReadAs, Stored, full_range
from fastconv.data.formats.pictures import stored
from fastconv.errors import DataError

_BITS_PER_SAMPLE = 258
_COLOUR_BITS = 8  # that Pillow keeps of colour; a grey page has its own mode for more


def count(file: File) -> int:
    """The number of pages."""
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1)
    except UnidentifiedImageError:
        return len(_by_tifffile(file).pages)


def read(file: File, index: int, how: ReadAs) -> Stored:
    """One page."""
    try:
        image = _opened(Image.open, file)
        image.seek(index)
        if _at_full_depth(image):
            return stored(image, how)
    except UnidentifiedImageError:
        pass
    return _page(_opened(_by_tifffile, file).pages[index])


def _at_full_depth(image: Image.Image) -> bool:
    if image.mode.startswith(("I;16", "F")):
        return True
    return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) <= _COLOUR_BITS  # type: ignore[attr-defined]


def _page(page: Any) -> Stored:
    try:
        values = page.asarray()
    except ValueError as error:  # a compression that needs imagecodecs
        raise DataError(f"tifffile cannot decode it: {error}") from error
    values = np.moveaxis(values, -1, 0) if page.axes.endswith("S") else values
    if page.axes not in ("YX", "YXS", "SYX"):
        raise DataError(f"its pages have the axes {page.axes}, not a picture's (YX, YXS or SYX)")
    if values.ndim == 2:
        values = values[None]
    alpha = len(values) in (2, 4) and page.extrasamples
    found = full_range(values[:-1] if alpha else values)
    inverted = page.photometric.name == "MINISWHITE"
    return found._replace(low=found.high, high=found.low) if inverted else found


def _by_tifffile(file: File) -> Any:
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise DataError(
            "TIFF of this kind (more than 8 bits of colour, say) needs tifffile: "
            "pip install 'fastconv[medical]'"
        ) from error
    return tifffile.TiffFile(file)


def _opened(how: Callable[[File], Any], file: File) -> Any:
    """The file, kept open while its pages are read one after the other."""
    if not isinstance(file, Path):
        return how(file)
    state = file.stat()  # another file of this name, or another process, opens anew
    key = (how, file, state.st_mtime_ns, state.st_size, os.getpid())
    if key not in _kept:
        _close()
        _kept[key] = how(file)
    return _kept[key]


_kept: dict[Any, Any] = {}  # the last file


@atexit.register
def _close() -> None:
    while _kept:
        _kept.popitem()[1].close()
