"""The patches of a layer, one strip of pictures a filter, or as lines where they have one axis."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from fastconv.export.report.budget import Budget
from fastconv.export.report.chunks import PER_CHUNK, Chunks
from fastconv.store.read_patches import Patches

FRAMES = 5  # slices of a volume
WAVE_LENGTH, WAVE_CHANNELS = 160, 3
_EXACT_SIDE = 24  # pictures up to this side are kept losslessly


def patches(stored: Patches, chunks: Chunks, budget: Budget) -> dict[str, Any]:
    """Add the patches [C, k, ...] of a layer.

    Returns:
        {"kind": "picture", "frames", "width", "height", "ranks", "chunks"}, or of 1-D layers and
        vectors {"kind": "wave", "ranks", "packs"}: a chunk for every `PER_CHUNK` filters.
    """
    ranks = min(stored.shape[1], budget.ranks)
    if stored.dtype != np.uint8 and len(stored.shape) <= 4:
        packs = [chunks.arrays(_waves(block[:, :ranks])) for block in _blocks(stored)]
        return {"kind": "wave", "ranks": ranks, "packs": packs}
    numbers, size, frames = [], (1, 1), 1
    if stored.dtype != np.uint8 and len(stored.shape) == 6:
        frames = min(stored.shape[3], FRAMES)
    span = None if stored.dtype == np.uint8 else _span(_spread(stored, ranks))
    for block in _blocks(stored):
        tiles = block[:, :ranks] if span is None else _frames(block[:, :ranks], span)
        size = fitting(tiles.shape[2:4], budget.side)  # type: ignore[assignment]
        numbers.append(
            chunks.pictures([strip(filter_, size, exact=budget.exact) for filter_ in tiles])
        )
    return {
        "kind": "picture",
        "frames": frames,
        "height": size[0],
        "width": size[1],
        "ranks": ranks,
        "chunks": numbers,
    }


def strip(tiles: np.ndarray, size: tuple[int, int], *, exact: bool = True) -> bytes:
    """[k, h, w, 3] uint8 pictures side by side as WebP, each of this height and width."""
    if tiles.shape[1:3] != size:
        scaled = [Image.fromarray(t).resize(size[::-1], Image.Resampling.BOX) for t in tiles]
        tiles = np.stack([np.asarray(picture) for picture in scaled])
    side_by_side = np.concatenate(list(tiles), axis=1)
    return webp(side_by_side, exact=exact and max(size) <= _EXACT_SIDE)


def webp(picture: np.ndarray, *, exact: bool = False) -> bytes:
    """[h, w, 3] uint8 as a WebP file."""
    file = io.BytesIO()
    options = {"lossless": True, "quality": 20} if exact else {"quality": 75}
    Image.fromarray(picture).save(file, "WEBP", method=1, **options)
    return file.getvalue()


def fitting(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width shrunk to a greatest height of `side`; pictures are never enlarged."""
    scale = min(1.0, side / size[0], 4 * side / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _blocks(stored: Any) -> Iterator[np.ndarray]:
    for start in range(0, stored.shape[0], PER_CHUNK):
        yield stored[start : start + PER_CHUNK]


def _spread(stored: Any, ranks: int) -> np.ndarray:
    """Some filters from all over the layer."""
    step = max(1, stored.shape[0] // 16)
    return np.stack([stored[i, :ranks] for i in range(0, stored.shape[0], step)])


def _frames(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """[F, k, C, (z,) y, x] floats as pictures uint8 [F, k, y, frames * x, 3]."""
    if values.ndim == 5:
        values = values[:, :, :, None]
    depth, channels = values.shape[3], values.shape[2]
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, FRAMES)).round().astype(int))
    values = values[:, :, :, chosen]
    if channels not in (1, 3):
        values = values.mean(axis=2, keepdims=True)
    low, high = span
    scaled = np.rint(255 * np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1))
    colour = np.broadcast_to(scaled, (*values.shape[:2], 3, *values.shape[3:]))
    beside = np.moveaxis(colour, 2, -1).transpose(0, 1, 3, 2, 4, 5)  # [F, k, y, z, x, 3]
    filters, ranks, y, z, x, _ = beside.shape
    return beside.reshape(filters, ranks, y, z * x, 3).astype(np.uint8)


def _waves(values: np.ndarray) -> dict[str, np.ndarray]:
    """[F, k, C(, x)] floats as levels uint8 [F, k, c, x] between low and high [F]."""
    if values.ndim == 3:
        values = values[:, :, None]  # a vector is one line over its channels
    values = shorten(np.nan_to_num(values[:, :, :WAVE_CHANNELS].astype(np.float32)), WAVE_LENGTH)
    flat = values.reshape(len(values), -1)
    low = flat.min(axis=1) if flat.size else np.zeros(len(values), np.float32)
    high = flat.max(axis=1) if flat.size else np.ones(len(values), np.float32)
    spread = np.where(high > low, high - low, 1)[:, None, None, None]
    levels = np.rint(255 * (values - low[:, None, None, None]) / spread).astype(np.uint8)
    return {"level": levels, "low": low, "high": high}


def shorten(values: np.ndarray, length: int) -> np.ndarray:
    """The last axis cut into `length` parts, each the value furthest from 0: peaks stay."""
    size = values.shape[-1]
    if size <= length:
        return values
    starts = np.arange(length) * size // length
    high = np.maximum.reduceat(values, starts, axis=-1)
    low = np.minimum.reduceat(values, starts, axis=-1)
    return np.where(high >= -low, high, low)


def _span(values: np.ndarray) -> tuple[float, float]:
    """A range that leaves outliers out and is never empty."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, [0.5, 99.5]))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
