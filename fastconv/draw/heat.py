"""Numbers as colours: perceptually uniform scales, and tiles of kernels in a grid."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

# viridis, and coolwarm of K. Moreland, "Diverging Color Maps for Scientific Visualization" (2009)
_VIRIDIS = (
    "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151"
    " a5db36 d2e21b fde725"
)
_COOLWARM = (
    "3b4cc0 4e68d8 6282ea 779af7 8db0fe a3c2fe b9d0f9 ccd9ed dddcdc ecd3c5 f5c4ac f7b093 f4987a"
    " eb7d62 dd5f4b ca3b37 b40426"
)
MISSING = (160, 160, 168)  # colour of a value that is not finite
MAX_CHANNELS = 16  # of a kernel that are drawn, those of greatest norm


def sequential(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Viridis colours, uint8 [..., 3], of values from `low` to `high`; grey where not finite."""
    return _colours(values, low, high, _VIRIDIS)


def diverging(values: np.ndarray, peak: float) -> np.ndarray:
    """Blue to red, uint8 [..., 3], of values from -`peak` to `peak`; pale grey at zero."""
    return _colours(values, -peak, peak, _COOLWARM)


def _colours(values: np.ndarray, low: float, high: float, scale: str) -> np.ndarray:
    anchors = np.array([list(bytes.fromhex(colour)) for colour in scale.split()], np.float64)
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    share = (np.where(finite, values, low) - low) / (high - low if high > low else 1.0)
    at = np.clip(share, 0, 1) * (len(anchors) - 1)
    found = np.stack([np.interp(at, np.arange(len(anchors)), c) for c in anchors.T], -1)
    found[~finite] = MISSING
    return np.rint(found).astype(np.uint8)


def finite_peak(values: np.ndarray) -> float:
    """The greatest finite magnitude, 1 where there is none: half the range of a scale about 0."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def finite_span(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest finite value, a little apart where they are one."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def kernel_tiles(weight: np.ndarray) -> np.ndarray:
    """Each kernel as one flat tile, its channels and planes apart by NaN.

    Args:
        weight: [F, C, *kernel] with 1 to 3 kernel dimensions.

    Returns:
        float32 [F, H, W]. Each channel of a 1-D kernel is a row, of a 3-D kernel a row of planes;
        those of 2-D kernels lie in a row (up to three) or in a square. More than 16 channels:
        those of greatest norm.
    """
    weight = strongest_channels(np.asarray(weight, np.float32))
    if weight.ndim == 3:
        return weight
    if weight.ndim == 5:
        return _mosaic(weight.reshape(len(weight), -1, *weight.shape[3:]), weight.shape[2])
    channels = weight.shape[1]
    return _mosaic(weight, channels if channels <= 3 else int(np.ceil(channels**0.5)))


def strongest_channels(weight: np.ndarray, count: int = MAX_CHANNELS) -> np.ndarray:
    """[F, C', ...]: the `count` channels of greatest norm of each filter, in their order."""
    if weight.shape[1] <= count:
        return weight
    norm = np.square(np.nan_to_num(weight)).sum(axis=tuple(range(2, weight.ndim)))
    best = np.sort(np.argsort(-norm, axis=1, kind="stable")[:, :count], axis=1)
    return np.take_along_axis(weight, best.reshape(*best.shape, *(1,) * (weight.ndim - 2)), 1)


def _mosaic(parts: np.ndarray, columns: int) -> np.ndarray:
    """[F, P, h, w] parts in rows of `columns`, NaN between them: [F, H, W]."""
    filters, count, h, w = parts.shape
    rows = -(-count // columns)
    mosaic = np.full((filters, rows * (h + 1) - 1, columns * (w + 1) - 1), np.nan, np.float32)
    for i in range(count):
        y, x = i // columns * (h + 1), i % columns * (w + 1)
        mosaic[:, y : y + h, x : x + w] = parts[:, i]
    return mosaic


def grid(tiles: np.ndarray, columns: int, gap: int, empty: float) -> np.ndarray:
    """Tiles [F, H, W, ...] in rows of `columns`, `gap` points of `empty` between and around."""
    filters, h, w = tiles.shape[:3]
    rows = -(-filters // columns)
    shape = (rows * (h + gap) + gap, columns * (w + gap) + gap, *tiles.shape[3:])
    picture = np.full(shape, empty, tiles.dtype)
    for i, tile in enumerate(tiles):
        y, x = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        picture[y : y + h, x : x + w] = tile
    return picture


def columns_of(count: int, height: int, width: int, aspect: float = 4 / 3) -> int:
    """Columns that bring a grid of `count` tiles nearest to an aspect of width to height."""
    options = range(1, count + 1)
    return min(options, key=lambda n: abs(np.log(n * width / (-(-count // n) * height) / aspect)))


def enlarge(picture: np.ndarray, side: int) -> np.ndarray:
    """Repeat the pixels of [H, W, 3] by the whole factor that fits `side`, at least once."""
    times = max(1, side // max(picture.shape[:2]))
    return picture.repeat(times, 0).repeat(times, 1)


def squares(pictures: Sequence[np.ndarray] | np.ndarray, side: int) -> np.ndarray:
    """Pictures [h, w, 3] uint8 of any size as [N, side, side, 3]: small ones keep their pixels."""
    made = np.empty((len(pictures), side, side, 3), np.uint8)
    for square, picture in zip(made, pictures, strict=True):
        small = max(picture.shape[:2]) < side
        how = Image.Resampling.NEAREST if small else Image.Resampling.BOX
        square[:] = np.asarray(Image.fromarray(picture).resize((side, side), how))
    return made


def png(picture: np.ndarray) -> bytes:
    """[H, W, 3] uint8 as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
