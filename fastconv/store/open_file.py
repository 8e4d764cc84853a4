"""A file of a run that is opened when something is first read of it: a path, or a URL of fsspec."""

from __future__ import annotations

import atexit
import itertools
import json
import math
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5f, h5fd

from fastconv.errors import FileFormatError, InputError
from fastconv.store import schema
from fastconv.store.guard import Guard, check_path, check_root, reading
from fastconv.store.remote import RemoteFile, is_url, local_path, open_url

MOST_CHUNKS = 1024  # of an array that are fetched beforehand


class OpenFile:
    """The HDF5 file of a run, or of the maps of one layer, read with every check of `Guard`.

    Attributes:
        place: its path, or its URL.
        kept: arrays that several layers share, by name, as far as readers keep them in memory.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        url = str(place) if is_url(str(place)) else None
        local = place if url is None else local_path(url)
        self.place: Path | str = str(url) if local is None else Path(local)
        self.closed = False
        self.kept: dict[str, np.ndarray] = {}
        self._file: h5py.File | None = None
        self._remote: RemoteFile | None = None
        self._groups: dict[tuple[str, ...], h5py.Group] = {}

    def check_path(self) -> None:
        """Say plainly what is wrong with a path that cannot be an HDF5 file at all."""
        if isinstance(self.place, Path):
            check_path(self.place)

    def for_others(self) -> Any:
        """The path, or a file object at the URL: something that another program can open."""
        return self.place if isinstance(self.place, Path) else open_url(self.place)

    @property
    def elsewhere(self) -> bool:
        """Whether the file is at a URL, where every request takes its time."""
        return not isinstance(self.place, Path)

    @property
    def root(self) -> h5py.File:
        """The file, opened and checked; raises once it was closed."""
        if self.closed:
            raise InputError(f"{self.place} is closed; open it again to read more of it")
        if self._file is None:
            with reading(self.place):
                if isinstance(self.place, str):
                    self._remote = open_url(self.place)
                    file, size = _open_remote(self._remote, self.place), self._remote.size
                else:
                    file, size = _open(self.place), self.place.stat().st_size
                self.guard = Guard(self.place, size)
                try:
                    check_root(self.guard, file)
                except BaseException:
                    file.close()
                    raise
                self._file = file
        return self._file

    def group(self, *path: str) -> h5py.Group:
        """The group at a path, whose every step is checked once."""
        root = self.root
        if not path:
            return root
        if path not in self._groups:
            with reading(self.place):
                self._groups[path] = self.guard.group(self.group(*path[:-1]), path[-1])
        return self._groups[path]

    def fetch(
        self, datasets: Iterable[h5py.Dataset], regions: Sequence[Sequence[slice]] | None = None
    ) -> None:
        """Fetch these arrays, or regions of them, at once from elsewhere, before they are read."""
        if self._remote is not None:
            with self.reading():
                self._remote.fetch(r for dataset in datasets for r in _places(dataset, regions))

    def has(self, *path: str) -> bool:
        """Whether the group that a path leads to has a child of its last name."""
        group = self.group(*path[:-1])
        with reading(self.place):
            return path[-1] in group

    @cached_property
    def config(self) -> dict[str, Any]:
        """Options, versions and hashes that made the run."""
        run = self.group("run")
        with self.reading():
            config = json.loads(self.guard.text(run, "config_json"))
            if not isinstance(config, dict):
                raise self.guard.fail("/run/config_json is no JSON object")
            return config

    @property
    def order(self) -> str:
        """Of the hits: "largest", "smallest" or "both"."""
        fingerprint = self.config.get("fingerprint")
        return fingerprint.get("order", "largest") if isinstance(fingerprint, dict) else "largest"

    def reading(self) -> AbstractContextManager[None]:
        """Turn every error that is raised inside into a `FileFormatError`."""
        return reading(self.place)

    def maps(self, layer: str) -> OpenFile:
        """The file of the maps of one layer, beside this one."""
        if isinstance(self.place, Path):
            return OpenFile(schema.maps_path(self.place, layer))
        return OpenFile(f"{self.place.removesuffix('.h5')}.maps/{schema.escape(layer)}.h5")

    def close(self) -> None:
        """Close the file for good."""
        if self._file is not None:
            self._file.close()
        self._file, self._remote, self.closed = None, None, True
        self._groups.clear()
        self.kept.clear()

    def __reduce__(self) -> tuple[type[OpenFile], tuple[Path | str]]:
        return OpenFile, (self.place,)


@atexit.register
def _close_elsewhere() -> None:
    """Close what reads from Python: HDF5 would do it when that has ended, and crash."""
    for file in h5f.get_obj_ids(h5f.OBJ_ALL, h5f.OBJ_FILE):
        if file.get_access_plist().get_driver() == h5fd.fileobj_driver:
            h5py.File(file).close()


def _open(place: Path) -> h5py.File:
    check_path(place)
    # as every other program in this process does by default, since HDF5 refuses a file that is open
    # with another way of locking; and without a lock where there are none, or another holds it
    for locking in (None, False, True):
        try:
            return h5py.File(place, "r", locking=locking)
        except OSError as error:
            refused = error
            if "lock" not in str(error):
                break
    raise refused


def _open_remote(file: RemoteFile, url: str) -> h5py.File:
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise FileFormatError(f"{url} is no HDF5 file, or cannot be read: {error}") from error


def _places(
    dataset: h5py.Dataset, regions: Sequence[Sequence[slice]] | None
) -> list[tuple[int, int]]:
    """Where the values of a dataset, or those of some regions, lie in the file."""
    if dataset.chunks is None:
        start, size = dataset.id.get_offset(), dataset.id.get_storage_size()
        return [] if start is None else [(start, start + size)]
    grid = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    if regions is None:
        found: list[h5py.h5d.StoreInfo] = []
        if math.prod(grid) <= MOST_CHUNKS:
            dataset.id.chunk_iter(found.append)
    else:
        shown = (chunk for region in regions for chunk in _chunks(region, dataset.chunks, grid))
        chunks = sorted(set(itertools.islice(shown, MOST_CHUNKS)))
        corners = [tuple(map(operator.mul, chunk, dataset.chunks)) for chunk in chunks]
        found = [dataset.id.get_chunk_info_by_coord(corner) for corner in corners]
    return [(c.byte_offset, c.byte_offset + c.size) for c in found if c.byte_offset is not None]


def _chunks(
    region: Sequence[slice], size: Sequence[int], grid: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """The chunks that have values of a region, whose last dimensions may be left out."""
    parts = zip(region, size, strict=False)
    ranges = [range(part.start // n, -(-part.stop // n)) for part, n in parts]
    return itertools.product(*ranges, *map(range, grid[len(ranges) :]))
