"""Patches of any kind as small pictures of one size."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

EMPTY, ZERO = (38, 38, 44), (70, 70, 78)  # behind lines, and the line at 0
LINES = ((255, 196, 84), (96, 200, 255), (240, 120, 160))  # up to three channels


def patch_tiles(patches: np.ndarray, side: int) -> np.ndarray:
    """Patches as uint8 [F, k, h, w, 3] of at most `side` pixels a side, or lines a bit wider.

    Args:
        patches: uint8 [F, k, h, w, 3], or float32 [F, k, C], [F, k, C, x], [F, k, C, y, x] or
            [F, k, C, z, y, x], of which the middle z is shown.
    """
    patches = np.asarray(patches)
    if patches.dtype != np.uint8:
        if patches.ndim <= 4:
            return _lines(patches, side)
        patches = _slices(patches)
    fitted = fit(patches.reshape(-1, *patches.shape[2:]), (side, side))
    return fitted.reshape(*patches.shape[:2], *fitted.shape[1:])


def fit(pictures: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
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


def _slices(patches: np.ndarray) -> np.ndarray:
    """[F, k, C, (z,) y, x] floats as pictures: three channels in colour, else their mean."""
    if patches.ndim == 6:
        patches = patches[:, :, :, patches.shape[3] // 2]
    grey = patches if patches.shape[2] in (1, 3) else patches.mean(axis=2, keepdims=True)
    picture = np.moveaxis(np.broadcast_to(grey, (*grey.shape[:2], 3, *grey.shape[3:])), 2, -1)
    low, high = _span(picture)
    scaled = np.nan_to_num((picture - low) / (high - low))
    return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _lines(patches: np.ndarray, side: int) -> np.ndarray:
    """[F, k, C] or [F, k, C, x] floats as line plots of up to three channels, on one scale."""
    if patches.ndim == 3:
        patches = patches[:, :, None, :]
    height, width = side * 2 // 3, side * 4 // 3
    low, high = _span(patches)
    level = (height - 3) / (high - low)
    if patches.shape[3] == 1:  # a level
        patches = patches.repeat(2, axis=3)
    x = np.linspace(0, width - 1, patches.shape[3]).tolist()
    y = np.clip(1 + level * (high - np.nan_to_num(patches)), 0, height - 1)
    tiles = np.empty((*patches.shape[:2], height, width, 3), np.uint8)
    for f, k in np.ndindex(*patches.shape[:2]):
        tile = Image.new("RGB", (width, height), EMPTY)
        draw = ImageDraw.Draw(tile)
        if low < 0 < high:
            draw.line([(0, 1 + level * high), (width, 1 + level * high)], ZERO)
        for channel, colour in reversed(list(zip(y[f, k].tolist(), LINES, strict=False))):
            draw.line(list(zip(x, channel, strict=True)), colour)
        tiles[f, k] = np.asarray(tile)
    return tiles


def _span(values: np.ndarray) -> tuple[float, float]:
    """A range that leaves outliers out and is never empty."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, [0.5, 99.5]))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
