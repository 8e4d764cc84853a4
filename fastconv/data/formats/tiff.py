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

_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274
_WHITE_IS_ZERO = 0
_COLOUR_BITS = 8  # that Pillow keeps of colour; a grey page has its own mode for more


def count(file: File) -> int:
    """The number of pages."""
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1)
    except UnidentifiedImageError:
        with _by_tifffile(file) as opened:
            return len(opened.pages)


def read(file: File, index: int, how: ReadAs) -> Stored:
    """One page."""
    try:
        # Pillow turns a page as it is loaded, and may forget how it was
        image = _opened(_by_pillow, file) if how.upright else _by_pillow(file)
        image.seek(index)
        if _at_full_depth(image):
            orientation = image.tag_v2.get(_ORIENTATION, 1)
            found = stored(image, ReadAs(upright=False))
            if image.mode[0] in "IF":  # elsewhere Pillow does it
                found = _white_is_high(found, image.tag_v2.get(_PHOTOMETRIC))
            return found if how.upright else _turned_back(found, orientation)
    except UnidentifiedImageError:
        pass
    page = _opened(_by_tifffile, file).pages[index]
    orientation = page.tags[_ORIENTATION].value if _ORIENTATION in page.tags else 1
    return _upright(_page(page), orientation) if how.upright else _page(page)


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
    return _white_is_high(full_range(values[:-1] if alpha else values), page.photometric)


def _white_is_high(found: Stored, photometric: int | None) -> Stored:
    if photometric != _WHITE_IS_ZERO:
        return found
    return found._replace(low=found.high, high=found.low)


def _upright(found: Stored, orientation: int) -> Stored:
    """A page as stored, turned as its tag says (TIFF 6.0, section 8)."""
    values = found.values
    if orientation >= 5:
        values = np.swapaxes(values, 1, 2)
    if orientation in (3, 4, 7, 8):
        values = values[:, ::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, :, ::-1]
    return found._replace(values=values)


def _turned_back(found: Stored, orientation: int) -> Stored:
    inverse = {6: 8, 8: 6}
    return _upright(found, inverse.get(orientation, orientation))


def _by_pillow(file: File) -> Any:
    image = Image.open(file)
    image.filename = ""  # so that it is not mapped: Pillow 13 garbles mapped pages it has to turn
    return image


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
    this = (file, state.st_mtime_ns, state.st_size, os.getpid())
    if any(kept != this for kept, _ in _kept):
        _close()
    if (this, how) not in _kept:
        _kept[this, how] = how(file)
    return _kept[this, how]


_kept: dict[Any, Any] = {}  # the last file, by Pillow and by tifffile


@atexit.register
def _close() -> None:
    while _kept:
        _kept.popitem()[1].close()
