"""A layer at a glance: its filters, each beside the patches that excite it most."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastconv.draw.heat import columns_of
from fastconv.draw.tiles import EMPTY, fit, patch_tiles
from fastconv.draw.weights import BACKGROUND, kernel_pictures
from fastconv.format.result import LayerResult

MAX_FILTERS = 32  # with their patches
MAX_HITS = 32  # of each order
MAX_KERNELS = 64  # that fill the picture; more are drawn small
TILES = (56, 112)  # pixels: small patches grow to a tile in whole steps, big ones shrink to it
AREA = 1e6  # pixels of a picture, as near as tiles between those two sizes get
LABEL, LABEL_SIZE = (150, 150, 160), 10
GAP, ROW_GAP, SET_GAP, BLOCK_GAP, MARGIN = 2, 4, 10, 24, 8


def overview(result: LayerResult) -> np.ndarray | None:
    """The first filters of a layer, each with its weights (when they make a picture) and its hits.

    Returns:
        uint8 [H, W, 3], upright, near 4:3; None when the run kept no patches. Rows run down the
        first column, then the next; hits run from the strongest to the right, then, where both
        orders were kept, from the weakest. Empty slots are flat.
    """
    kept = [pictures for _, _, pictures in result.hit_sets() if pictures is not None]
    if not kept or not kept[0].shape[0] or not kept[0].shape[1]:
        return None
    shown, ranks = min(MAX_FILTERS, kept[0].shape[0]), min(MAX_HITS, kept[0].shape[1])
    side = _tile_side(shown * (len(kept) * ranks + 1))
    patches = np.concatenate([pictures[:shown, :ranks] for pictures in kept], axis=1)
    tiles = patch_tiles(patches, side)  # [F, k, h, w, 3]
    empty = [np.asarray(hits["sample"])[:shown, :ranks] < 0 for _, hits, _ in result.hit_sets()]
    tiles[np.concatenate(empty, axis=1)] = EMPTY
    kernels = None
    if result.weight is not None and _is_picture(result.weight):
        kernels = fit(kernel_pictures(result.weight[:shown]), tiles.shape[2:4])
    return _arrange(tiles, kernels, ranks)


def weights_picture(weight: np.ndarray) -> np.ndarray | None:
    """All filters of a 2-D convolution over one or three input channels, else None.

    Returns:
        uint8 [H, W, 3]; see `kernel_pictures`.
    """
    if not _is_picture(weight):
        return None
    side = _tile_side(len(weight)) if len(weight) <= MAX_KERNELS else TILES[0]
    tiles = fit(kernel_pictures(weight), (side, side))
    h, w = (n + GAP for n in tiles.shape[1:3])
    columns = columns_of(len(weight), h, w)
    picture = _canvas(-(-len(weight) // columns) * h - GAP, columns * w - GAP)
    for i, tile in enumerate(tiles):
        _paste(picture, tile, MARGIN + i // columns * h, MARGIN + i % columns * w)
    return picture


def _tile_side(count: int) -> int:
    return int(np.clip((AREA / count) ** 0.5, *TILES))


def _is_picture(weight: np.ndarray) -> bool:
    return weight.ndim == 4 and weight.shape[1] in (1, 3) and 1 < max(weight.shape[2:]) <= 64


def _arrange(tiles: np.ndarray, kernels: np.ndarray | None, ranks: int) -> np.ndarray:
    """Rows `number, weights, hits ...` in as many columns as make the picture near 4:3.

    After each `ranks` hits, which are of one order, there is a gap.
    """
    filters, k, h, w = tiles.shape[:4]
    label = LABEL_SIZE * len(str(filters - 1)) + 4
    extra = 0 if kernels is None else kernels.shape[2] + 4 * GAP
    row_h = max(h, 0 if kernels is None else kernels.shape[1], LABEL_SIZE)
    at = [label + extra + i * (w + GAP) + i // ranks * SET_GAP for i in range(k)]
    row_w = at[-1] + w
    columns = columns_of(filters, row_h + ROW_GAP, row_w + BLOCK_GAP)
    rows = -(-filters // columns)
    picture = _canvas(rows * (row_h + ROW_GAP) - ROW_GAP, columns * (row_w + BLOCK_GAP) - BLOCK_GAP)
    rows_of = picture[MARGIN:][: rows * (row_h + ROW_GAP)].reshape(rows, row_h + ROW_GAP, -1, 3)
    places = []  # where numbers end
    for column in range(columns):
        x, filters_here = MARGIN + column * (row_w + BLOCK_GAP), slice(column * rows, filters)
        if kernels is not None:
            _paste_rows(rows_of, kernels[filters_here], (row_h - kernels.shape[1]) // 2, x + label)
        for rank, left in enumerate(at):
            _paste_rows(rows_of, tiles[filters_here, rank], (row_h - h) // 2, x + left)
        ys = range(MARGIN, MARGIN + rows * (row_h + ROW_GAP), row_h + ROW_GAP)
        places += [(x + label - 4, y + row_h // 2) for y in ys]
    return _numbered(picture, places[:filters])


def _numbered(picture: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
    """Write 0, 1, 2, ... so that each ends at its place (x, y)."""
    for number, (x, y) in enumerate(places):
        label = _label(number)
        _paste(picture, label, y - LABEL_SIZE // 2, x - label.shape[1])
    return picture


@cache
def _label(number: int) -> np.ndarray:
    """A number on the background, uint8 [h, w, 3]."""
    font = ImageFont.load_default(LABEL_SIZE)
    width = math.ceil(font.getlength(str(number)))
    image = Image.new("RGB", (width, LABEL_SIZE + 2), BACKGROUND)
    ImageDraw.Draw(image).text((width, LABEL_SIZE // 2), str(number), LABEL, font, anchor="rm")
    return np.array(image)


def _canvas(height: int, width: int) -> np.ndarray:
    """Background for a picture of this size, and a margin around it."""
    picture = np.empty((height + 2 * MARGIN, width + 2 * MARGIN, 3), np.uint8)
    picture[...] = np.broadcast_to(
        np.array(BACKGROUND, np.uint8), picture.shape[1:]
    ).copy()  # row by row
    return picture


def _paste_rows(rows: np.ndarray, tiles: np.ndarray, y: int, x: int) -> None:
    """Put a tile [h, w, 3] into each of the rows [R, height, W, 3], as far as there are tiles."""
    tiles = tiles[: len(rows)]
    rows[: len(tiles), y : y + tiles.shape[1], x : x + tiles.shape[2]] = tiles


def _paste(picture: np.ndarray, tile: np.ndarray, y: int, x: int) -> None:
    picture[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
