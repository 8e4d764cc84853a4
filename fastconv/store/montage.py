"""Pictures of a layer at a glance: its filters, each beside the patches that excite it most."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fastconv.records import LayerResult

MAX_FILTERS = 64
TILE = 48  # pixels: small patches grow to it in whole steps, big ones shrink to it
BACKGROUND, EMPTY, LABEL = (18, 18, 22), (38, 38, 44), (150, 150, 160)
LINES = ((255, 196, 84), (96, 200, 255), (240, 120, 160))
GAP, BLOCK_GAP = 2, 18
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
    tiles = _tiles(result.patches[:shown])  # [F, k, h, w, 3]
    if result.topk:
        tiles[np.asarray(result.topk["sample"])[:shown] < 0] = EMPTY
    weights = None
    if result.weight is not None and _pictures(result.weight):
        weights = [_weight_tile(w, tiles.shape[2:4]) for w in result.weight[:shown]]
    return _arrange(tiles, weights)


def weights_picture(weight: np.ndarray) -> np.ndarray | None:
    """All filters of a 2-D convolution over one or three input channels, else None.

    Returns:
        uint8 [H, W, 3], each filter scaled by its greatest weight, zero at mid grey.
    """
    if not _pictures(weight):
        return None
    tile = _weight_tile(weight[0], (TILE, TILE)).shape[:2]
    columns = _columns(len(weight), tile[0] + GAP, tile[1] + GAP)
    rows = -(-len(weight) // columns)
    picture = _canvas(rows * (tile[0] + GAP) + GAP, columns * (tile[1] + GAP) + GAP)
    for i, filter_weight in enumerate(weight):
        y, x = i // columns * (tile[0] + GAP) + GAP, i % columns * (tile[1] + GAP) + GAP
        _paste(picture, _weight_tile(filter_weight, (TILE, TILE)), y, x)
    return picture


def _pictures(weight: np.ndarray) -> bool:
    return weight.ndim == 4 and weight.shape[1] in (1, 3) and 1 < max(weight.shape[2:]) <= 64


def _weight_tile(weight: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """[C, h, w] weights as a picture that fits `size`."""
    w = np.nan_to_num(np.asarray(weight, np.float32))
    peak = float(np.abs(w).max()) or 1.0
    rgb = np.broadcast_to(np.moveaxis(w / peak, 0, -1), (*w.shape[1:], 3))
    return _fit(np.rint(127.5 + 127.5 * rgb).astype(np.uint8), size)


def _tiles(patches: np.ndarray) -> np.ndarray:
    """Patches of any kind as pictures, uint8 [F, k, h, w, 3]."""
    if patches.dtype == np.uint8:
        pictures = np.asarray(patches)
    elif patches.ndim <= 4:  # [F, k, C] or [F, k, C, x]
        return _lines(np.asarray(patches, np.float32))
    else:
        pictures = _slices(np.asarray(patches, np.float32))
    count = pictures.shape[:2]
    fitted = [_fit(p, (TILE, TILE)) for p in pictures.reshape(-1, *pictures.shape[2:])]
    return np.stack(fitted).reshape(*count, *fitted[0].shape)


def _slices(patches: np.ndarray) -> np.ndarray:
    """[F, k, C, (z,) y, x] floats as pictures: the middle z, colour of three channels or grey."""
    if patches.ndim == 6:
        patches = patches[:, :, :, patches.shape[3] // 2]
    channels = patches.shape[2]
    grey = patches if channels in (1, 3) else patches.mean(axis=2, keepdims=True)
    picture = np.moveaxis(np.broadcast_to(grey, (*grey.shape[:2], 3, *grey.shape[3:])), 2, -1)
    low, high = _span(picture)
    return np.rint(255 * np.clip((picture - low) / (high - low), 0, 1)).astype(np.uint8)


def _lines(patches: np.ndarray) -> np.ndarray:
    """[F, k, C] or [F, k, C, x] floats as line plots of up to three channels, on one scale."""
    if patches.ndim == 3:
        patches = patches[:, :, None, :]
    height, width = TILE * 2 // 3, TILE * 4 // 3
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


def _fit(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Scale [h, w, 3] into `size`: up by whole steps, down by averaging."""
    h, w = picture.shape[:2]
    scale = min(size[0] / h, size[1] / w)
    if scale >= 1:
        return picture.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    new = max(1, round(w * scale)), max(1, round(h * scale))
    return np.asarray(Image.fromarray(picture).resize(new, Image.Resampling.BOX))


def _columns(count: int, height: int, width: int) -> int:
    """How many columns of `count` cells bring the picture nearest to 4:3."""
    return min(
        range(1, count + 1),
        key=lambda n: abs(np.log(n * width / (-(-count // n) * height) / ASPECT)),
    )


def _arrange(tiles: np.ndarray, weights: list[np.ndarray] | None) -> np.ndarray:
    """Rows `index, weights, hits ...` in as many columns as make the picture near 4:3."""
    filters, k, h, w = tiles.shape[:4]
    label = 4 * len(str(filters - 1)) + 3
    extra = weights[0].shape[1] + 3 * GAP if weights else 0
    row_h = max(h, weights[0].shape[0] if weights else 0, 7) + GAP
    row_w = label + extra + k * (w + GAP) + BLOCK_GAP
    columns = _columns(filters, row_h, row_w)
    rows = -(-filters // columns)
    picture = _canvas(rows * row_h + GAP, columns * row_w - BLOCK_GAP + 2 * GAP)
    for f in range(filters):
        y, x = f % rows * row_h + GAP, f // rows * row_w + GAP
        _number(picture, f, y + (row_h - GAP - 5) // 2, x, label)
        x += label
        if weights:
            _paste(picture, weights[f], y + (row_h - GAP - weights[f].shape[0]) // 2, x)
            x += extra
        for rank in range(k):
            _paste(picture, tiles[f, rank], y, x + rank * (w + GAP))
    return picture


def _canvas(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def _paste(picture: np.ndarray, tile: np.ndarray, y: int, x: int) -> None:
    picture[y : y + tile.shape[0], x : x + tile.shape[1]] = tile


# digits of 3 x 5 pixels, one octal number a row
_DIGITS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71122", "75757", "75717")


def _number(picture: np.ndarray, number: int, y: int, x: int, width: int) -> None:
    """Write a number, its right end 3 pixels before x + width."""
    text = str(number)
    x += width - 3 - 4 * len(text) + 1
    for i, digit in enumerate(text):
        for row, bits in enumerate(_DIGITS[int(digit)]):
            for column in range(3):
                if int(bits) >> (2 - column) & 1:
                    picture[y + row, x + 4 * i + column] = LABEL
