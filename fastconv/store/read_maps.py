"""The activation maps of one layer, in the file of the run or in one beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

import h5py
import numpy as np

from fastconv.errors import FileFormatError, InputError
from fastconv.format.result import LayerInfo, Maps, Rows
from fastconv.store import schema
from fastconv.store.codec import MAP_ROWS
from fastconv.store.guard import Guard
from fastconv.store.open_file import OpenFile
from fastconv.store.read_group import ArrayGroup

EPSILON = 1e-5  # of a variance


class StoredMaps:
    """Reads maps row by row or filter by filter, as they are stored or as they are meant."""

    def __init__(
        self,
        file: OpenFile,
        path: tuple[str, ...],
        info: LayerInfo,
        stats: Callable[[], Mapping[str, np.ndarray]],
    ) -> None:
        """Take the file of the run, the path of the layer there, and its statistics."""
        self._file, self._path, self._info, self._stats = file, path, info, stats

    @contextmanager
    def file(self) -> Iterator[tuple[OpenFile, OpenFile | None]]:
        """The file that holds the maps, and that file again when it is not the run's own."""
        layer = self._file.group(*self._path)
        with self._file.reading():
            identity = self._file.guard.attribute(layer, "maps_of")
        if identity is None:
            yield self._file, None
            return
        beside = self._file.maps(self._info.name)
        try:
            there = beside.group(*self._path)
            with beside.reading():
                if beside.guard.attribute(there, "maps_of") != identity:
                    raise FileFormatError(
                        f"{beside.place} belongs to another run than {self._file.place}"
                    )
            yield beside, beside
        finally:
            beside.close()

    @contextmanager
    def _opened(self) -> Iterator[tuple[Guard, dict[str, h5py.Dataset]]]:
        """The datasets of the maps, checked, in whichever file they are."""
        with self.file() as (file, _):
            path = (*self._path, "activations")
            group = ArrayGroup(file, path, {}, self._info).group
            with file.reading():
                storage = file.guard.attribute(group, "storage")
                if storage not in schema.MAP_DTYPES:
                    raise file.guard.fail(f"{group.name} keeps its maps as {storage!r}")
                fields = schema.map_fields(str(storage), len(self._info.size))
                arrays = ArrayGroup(file, path, fields, self._info)
                yield file.guard, {name: arrays.dataset(name) for name in fields}

    @cached_property
    def samples(self) -> np.ndarray:
        """[n] int64: the sample of each row."""
        with self._opened() as (_, found):
            return found["sample"][()]

    def one(self, sample: int, filter: int | None) -> np.ndarray:
        """The map of one sample, [C, *spatial] float32, or of one filter of it, [*spatial]."""
        rows = np.flatnonzero(self.samples == sample)
        if not rows.size:
            raise InputError(f"no map of sample {sample} was kept for {self._info.name}")
        which = slice(None) if filter is None else slice(filter, filter + 1)
        values = self._values(slice(int(rows[0]), int(rows[0]) + 1), which)[0]
        return values if filter is None else values[0]

    def of_filter(self, filter: int) -> Iterator[tuple[int, np.ndarray]]:
        """The sample and the map [*spatial] float32 of every row, a few rows read at a time."""
        for first in range(0, len(self.samples), MAP_ROWS):
            rows = slice(first, first + MAP_ROWS)
            values = self._values(rows, slice(filter, filter + 1))
            for sample, value in zip(self.samples[rows].tolist(), values, strict=True):
                yield sample, value[0]

    def _values(self, rows: slice, filters: slice) -> np.ndarray:
        """[rows, filters, *spatial] float32, scaled and normalised."""
        with self._opened() as (guard, found):
            mode = _normalization(guard, found)
            part = {n: found[n][rows, filters] for n in found if n != "sample"}
        values = part["activation"].astype(np.float32, copy=False)
        spread = (...,) + (None,) * (values.ndim - 2)
        if "scale" in part:
            values = values * part["scale"][spread] + part["offset"][spread]
        if mode not in ("zscore", "minmax"):
            return values
        # with the bits of `channel_normalize`, which needs torch: a scale and a shift in float32
        stats = {n: self._stats()[n][filters].astype("f8") for n in ("mean", "var", "min", "max")}
        if mode == "zscore":
            scale, origin = 1 / np.sqrt(stats["var"] + EPSILON), stats["mean"]
        else:
            span, origin = stats["max"] - stats["min"], stats["min"]
            scale = np.divide(1, span, out=np.zeros_like(span), where=span > 0)
        shift = (-origin * scale).astype(np.float32)
        return values * scale.astype(np.float32)[spread] + shift[spread]

    def raw(self) -> Maps:
        """All maps as they are stored; they are read when their blocks are asked for."""
        with self._opened() as (guard, found):
            keepbits = guard.attribute(found["activation"].parent, "keepbits")
            storage = guard.attribute(found["activation"].parent, "storage")
            if not isinstance(keepbits, int):
                raise guard.fail(f"{self._info.name}: it does not say how exact its maps are")
            rows = {n: self._rows(n, found) for n in found if n != "sample"}
            return Maps(
                str(storage),
                keepbits,
                found["sample"][()],
                rows["activation"],
                rows.get("scale"),
                rows.get("offset"),
                _normalization(guard, found),
            )

    def _rows(self, name: str, found: Mapping[str, h5py.Dataset]) -> Rows:
        def blocks() -> Iterator[h5py.Dataset]:
            with self._opened() as (_, again):
                yield again[name]

        return Rows(found[name].shape, blocks())


def _normalization(guard: Guard, found: Mapping[str, h5py.Dataset]) -> str | None:
    mode = guard.attribute(found["activation"].parent, "normalize")
    if mode is not None and mode not in schema.NORMALIZATIONS:
        raise guard.fail(f"its maps are normalised by {mode!r}")
    return None if mode is None else str(mode)
