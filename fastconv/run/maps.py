"""The activation maps that a run keeps: which, how normalised, and how stored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import Tensor

from fastconv.format.result import NORMALIZED_ON_READING, LayerInfo, Maps, Rows
from fastconv.ops.channel_normalize import channel_normalize
from fastconv.run.options import Options
from fastconv.store.codec import MAP_ROWS, to_uint8
from fastconv.store.parts import Part, PartWriter
from fastconv.store.schema import MAP_DTYPES

Affine = tuple[Tensor, Tensor]  # scale and shift [C]
# compressed, of dense maps; those after a ReLU take two thirds
BYTES_A_VALUE = {"rounded": 1.6, "exact": 3.2, "float16": 1.6, "uint8": 0.9}


class KeptMaps:
    """Writes the maps of the samples asked for into parts, and finds them there again."""

    def __init__(
        self,
        options: Options,
        affines: Sequence[Affine] | None,
        part: Callable[[], PartWriter],
    ):
        self._part = part  # the part that is being written
        self._all = options.maps == "all"
        self._samples = np.asarray([] if self._all else options.maps or [], np.int64)
        self._mode, self._storage, self._affines = options.normalize, options.maps_dtype, affines
        rounded = 7 if options.dtype == "bfloat16" else 10  # 7 bits hold all of a bfloat16
        self._keepbits = rounded if self._storage == "rounded" else 23

    def rows(self, samples: np.ndarray) -> np.ndarray:
        """The rows of a batch whose maps are kept."""
        if self._all:
            return np.arange(len(samples))
        return np.flatnonzero(np.isin(samples, self._samples))

    def size(self, infos: Sequence[LayerInfo], samples: np.ndarray | None) -> tuple[str, float]:
        """What the maps of `samples` will take, in words, and in bytes on the disk.

        None stands for those of a stream of unknown length; of "all" a single one is counted then.
        """
        each = samples is None and self._all
        if samples is None:
            samples = np.zeros(1, np.int64) if self._all else self._samples
        count = len(self.rows(samples))
        values = count * sum(info.channels * math.prod(info.size) for info in infos)
        raw = values * np.dtype(MAP_DTYPES[self._storage]).itemsize
        disk = values * BYTES_A_VALUE[self._storage]
        what = "every sample" if each else f"{count:,} samples"
        words = f"maps of {what} x {len(infos)} layers: {_bytes(raw)} uncompressed"
        return f"{words}, about {_bytes(disk)} on the disk{' each' if each else ''}", disk

    def write(self, layer: int, first: int, values: Tensor) -> None:
        """Add the maps of one batch, `first` its first sample: float32 [n, C, *spatial]."""
        writer = self._part()
        rows = self._normalized(values, layer).cpu().numpy()
        if self._storage == "uint8":
            rows, scale, offset = _eight_bits(rows)
            writer.append(f"maps_scale/{layer}", scale)
            writer.append(f"maps_offset/{layer}", offset)
        elif self._storage == "float16":
            with np.errstate(over="ignore"):  # beyond 65504 it is infinite
                rows = rows.astype(np.float16)
        total = (MAP_ROWS if self._all else len(self._samples), *rows.shape[1:])
        writer.add_maps(layer, first, rows, total, self._keepbits)

    def of_layer(
        self, parts: Sequence[Part], layer: int, info: LayerInfo, samples: np.ndarray
    ) -> Maps:
        """The maps of one layer, of those of `samples` that are kept."""
        samples = samples[self.rows(samples)]
        shape = (len(samples), info.channels, *info.size)
        blocks = itertools.chain.from_iterable(part.maps(layer) for part in parts)
        maps = Maps(self._storage, self._keepbits, samples, Rows(shape, blocks))
        maps.normalize = self._mode
        if self._storage == "uint8":
            maps.scale = Rows(shape[:2], _tables(parts, f"maps_scale/{layer}"))
            maps.offset = Rows(shape[:2], _tables(parts, f"maps_offset/{layer}"))
        return maps

    def _normalized(self, values: Tensor, layer: int) -> Tensor:
        if self._mode is None or self._mode in NORMALIZED_ON_READING:
            return values
        if self._affines is None:
            return channel_normalize(values, self._mode)
        scale, shift = self._affines[layer]
        return channel_normalize(values, self._mode, scale=scale, shift=shift)


def _bytes(count: float) -> str:
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))
    size, unit = next((u for u in units if count >= u[0]), units[-1])
    return f"{count / size:.3g} {unit}"


def _tables(parts: Sequence[Part], name: str) -> Iterator[np.ndarray]:
    for part in parts:
        rows = part.rows(name)
        if rows is not None:
            yield rows


def _eight_bits(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Infinities become the extrema of their map, NaN the minimum, or NaN where all are."""
    finite = np.isfinite(maps)
    if finite.all():
        return to_uint8(maps)
    axes = tuple(range(2, maps.ndim))
    low = np.where(finite, maps, np.inf).min(axes, keepdims=True)
    high = np.where(finite, maps, -np.inf).max(axes, keepdims=True)
    clipped = np.clip(np.where(np.isnan(maps), low, maps), low, high)
    empty = ~finite.any(axes)  # [n, C]
    clipped[empty] = 0
    rows, scale, offset = to_uint8(clipped)
    offset[empty] = np.nan
    return rows, scale, offset
