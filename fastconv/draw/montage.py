"""Pictures of a layer at a glance: its filters, each beside the patches that excite it most."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fastconv.format.result import LayerResult

MAX_FILTERS = 32
TILES = (56, 112)  # pixels: small patches grow to a tile in whole steps, big ones shrink to it
AREA = 1e6  # pixels of a picture, as near as tiles between those two sizes get
BACKGROUND, EMPTY, LABEL = (18, 18, 22), (38, 38, 44), (150, 150, 160)
LINES = ((255, 196, 84), (96, 200, 255), (240, 120, 160))
GAP, ROW_GAP, BLOCK_GAP, MARGIN = 2, 4, 24, 8
ASPECT = 4 / 3


def overview(result: LayerResult) -> np.ndarray | None:
    """The first filters of a layer, each with its weights (when they make a picture) and its hits.

    Returns:
        uint8 [H, W, 3], upright, near 4:3; None when the run kept no patches. Rows run down the
        first column, then the next; hits run from the strongest to the right. Empty slots are flat.
    """
    if result.patches is None or not result.patches.shape[0] or not result.patches.shape[1]:
        return None
    shown = min(MAX_FILTERS, result.patches.shape[0])
    side = _tile_side(shown * (result.patches.shape[1] + 1))
    tiles = _tiles(result.patches[:shown], side)  # [F, k, h, w, 3]
    if result.topk:
        tiles[np.asarray(result.topk["sample"])[:shown] < 0] = EMPTY
    weights = None
    if result.weight is not None and _is_picture(result.weight):
        weights = _weight_tiles(result.weight[:shown], tiles.shape[2:4])
    return _arrange(tiles, weights)


def weights_picture(weight: np.ndarray) -> np.ndarray | None:
    """All filters of a 2-D convolution over one or three input channels, else None.

    Returns:
        uint8 [H, W, 3], each filter scaled by its greatest weight, zero at mid grey.
    """
    if not _is_picture(weight):
        return None
    side = _tile_side(len(weight)) if len(weight) <= MAX_FILTERS else TILES[0]
    tiles = _weight_tiles(weight, (side, side))
    h, w = (n + GAP for n in tiles.shape[1:3])
    columns = _columns(len(weight), h, w)
    picture = _canvas(-(-len(weight) // columns) * h - GAP, columns * w - GAP)
    for i, tile in enumerate(tiles):
        _paste(picture, tile, MARGIN + i // columns * h, MARGIN + i % columns * w)
    return picture


def _tile_side(count: int) -> int:
    return int(np.clip((AREA / count) ** 0.5, *TILES))


def _is_picture(weight: np.ndarray) -> bool:
    return weight.ndim == 4 and weight.shape[1] in (1, 3) and 1 < max(weight.shape[2:]) <= 64


def _weight_tiles(weight: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """[F, C, h, w] weights as pictures that fit `size`, uint8 [F, h', w', 3]."""
    w = np.nan_to_num(np.asarray(weight, np.float32))
    peak = np.abs(w).max(axis=(1, 2, 3), keepdims=True)
    rgb = np.moveaxis(w / np.where(peak > 0, peak, 1), 1, -1)
    pictures = np.broadcast_to(np.rint(127.5 + 127.5 * rgb), (*rgb.shape[:3], 3))
    return _fit(pictures.astype(np.uint8), size)


def _tiles(patches: np.ndarray, side: int) -> np.ndarray:
    """Patches of any kind as pictures, uint8 [F, k, h, w, 3]."""
    if patches.dtype == np.uint8:
        pictures = np.asarray(patches)
    elif patches.ndim <= 4:  # [F, k, C] or [F, k, C, x]
        return _lines(np.asarray(patches, np.float32), side)
    else:
        pictures = _slices(np.asarray(patches, np.float32))
    fitted = _fit(pictures.reshape(-1, *pictures.shape[2:]), (side, side))
    return fitted.reshape(*pictures.shape[:2], *fitted.shape[1:])


def _slices(patches: np.ndarray) -> np.ndarray:
    """[F, k, C, (z,) y, x] floats as pictures: the middle z, colour of three channels or grey."""
    if patches.ndim == 6:
        patches = patches[:, :, :, patches.shape[3] // 2]
    channels = patches.shape[2]
    grey = patches if channels in (1, 3) else patches.mean(axis=2, keepdims=True)
    picture = np.moveaxis(np.broadcast_to(grey, (*grey.shape[:2], 3, *grey.shape[3:])), 2, -1)
    low, high = _span(picture)
    return np.rint(255 * np.clip((picture - low) / (high - low), 0, 1)).astype(np.uint8)


def _lines(patches: np.ndarray, side: int) -> np.ndarray:
    """[F, k, C] or [F, k, C, x] floats as line plots of up to three channels, on one scale."""
    if patches.ndim == 3:
        patches = patches[:, :, None, :]
    height, width = side * 2 // 3, side * 4 // 3
    low, high = _span(patches)
    tiles = np.full((*patches.shape[:2], height, width, 3), EMPTY, np.uint8)
    at = np.linspace(0, patches.shape[3] - 1, width)
    zero = (height - 3) * (high - 0.0) / (high - low) + 1
    for f, k in np.ndindex(*patches.shape[:2]):
        tile = tiles[f, k]
        if 0 < zero < height - 1:
            tile[round(zero)] = (70, 70, 78)
        for channel, color in reversed(list(zip(patches[f, k], LINES))):  # noqa: B905
            values = np.interp(at, np.arange(len(channel)), np.nan_to_num(channel))
            y = np.rint((height - 3) * (high - values) / (high - low)).astype(int) + 1
            y = np.clip(y, 0, height - 1)
            for x in range(width):
                a, b = sorted((y[max(x - 1, 0)], y[x]))
                tile[a : b + 1, x] = color
    return tiles


def _span(values: np.ndarray) -> tuple[float, float]:
    """A range that leaves outliers out and is never empty."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, [0.5, 99.5]))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _fit(pictures: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Scale [M, h, w, 3] into `size`: up by whole steps, down by averaging."""
    h, w = pictures.shape[1:3]
    scale = min(size[0] / h, size[1] / w)
    if scale >= 1:
        times = int(scale)
        if times == 1:
            return pictures.copy()
        return pictures.repeat(times, axis=2).repeat(times, axis=1)  # rows last: they are longer
    new = max(1, round(w * scale)), max(1, round(h * scale))
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(p).resize(new, box)) for p in pictures])


def _columns(count: int, height: int, width: int) -> int:
    """How many columns of `count` cells bring the picture nearest to 4:3."""
    return min(
        range(1, count + 1),
        key=lambda n: abs(np.log(n * width / (-(-count // n) * height) / ASPECT)),
    )


def _arrange(tiles: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Rows `index, weights, hits ...` in as many columns as make the picture near 4:3."""
    filters, k, h, w = tiles.shape[:4]
    label = DIGIT * len(str(filters - 1)) + 4
    extra = 0 if weights is None else weights.shape[2] + 4 * GAP
    row_h = max(h, 0 if weights is None else weights.shape[1], 10)
    row_w = label + extra + k * (w + GAP) - GAP
    columns = _columns(filters, row_h + ROW_GAP, row_w + BLOCK_GAP)
    rows = -(-filters // columns)
    picture = _canvas(rows * (row_h + ROW_GAP) - ROW_GAP, columns * (row_w + BLOCK_GAP) - BLOCK_GAP)
    strips = _strips(tiles)
    for f in range(filters):
        y = MARGIN + f % rows * (row_h + ROW_GAP)
        x = MARGIN + f // rows * (row_w + BLOCK_GAP)
        _number(picture, f, y + (row_h - 10) // 2, x + label - 4)
        x += label
        if weights is not None:
            _paste(picture, weights[f], y + (row_h - weights.shape[1]) // 2, x)
            x += extra
        _paste(picture, strips[f], y + (row_h - h) // 2, x)
    return picture


def _strips(tiles: np.ndarray) -> np.ndarray:
    """[F, k, h, w, 3] tiles side by side, [F, h, k * (w + GAP) - GAP, 3]."""
    filters, k, h, w = tiles.shape[:4]
    strips = np.empty((filters, h, k, w + GAP, 3), np.uint8)
    strips[:, :, :, :w] = tiles.swapaxes(1, 2)
    strips[:, :, :, w:] = BACKGROUND
    return strips.reshape(filters, h, -1, 3)[:, :, :-GAP]


def _canvas(height: int, width: int) -> np.ndarray:
    """Background for a picture of this size, and a margin around it."""
    row = np.full((width + 2 * MARGIN, 3), BACKGROUND, np.uint8)
    return np.broadcast_to(row, (height + 2 * MARGIN, *row.shape)).copy()


def _paste(picture: np.ndarray, tile: np.ndarray, y: int, x: int) -> None:
    picture[y : y + tile.shape[0], x : x + tile.shape[1]] = tile


# digits of 3 x 5 dots, a row an octal number; drawn at twice the size
_DOTS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71122", "75757", "75717")
_DRAWN = np.array([[[int(row) >> (2 - c) & 1 for c in range(3)] for row in d] for d in _DOTS])
_GLYPHS = _DRAWN.repeat(2, axis=1).repeat(2, axis=2) > 0
DIGIT = 8  # pixels from one to the next


def _number(picture: np.ndarray, number: int, y: int, right: int) -> None:
    """Write a number that ends at x = right."""
    for i, digit in enumerate(reversed(str(number))):
        x = right - DIGIT * (i + 1)
        picture[y : y + 10, x : x + 6][_GLYPHS[int(digit)]] = LABEL
