"""A file of a run that is opened when something is first read of it: a path, or a URL of fsspec."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py

from fastconv.errors import FileFormatError, InputError
from fastconv.store import schema
from fastconv.store.guard import Guard, check_path, check_root, reading

# of a file elsewhere: few requests for metadata, which lies together, and few bytes for one filter
REMOTE_BLOCK, REMOTE_BLOCKS = 2**15, 512


class OpenFile:
    """The HDF5 file of a run, or of the maps of one layer, read with every check of `Guard`."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        local = None if "://" not in str(place) else _local_path(str(place))
        remote = "://" in str(place) and local is None
        self.place: Path | str = str(place) if remote else Path(local or place)
        self.closed = False
        self._file: h5py.File | None = None
        self._groups: dict[tuple[str, ...], h5py.Group] = {}

    def check_path(self) -> None:
        """Say plainly what is wrong with a path that cannot be an HDF5 file at all."""
        if isinstance(self.place, Path):
            check_path(self.place)

    def for_others(self) -> Any:
        """What another reader opens: the path, or the file at the URL."""
        return self.place if isinstance(self.place, Path) else _open_url(self.place)

    @property
    def root(self) -> h5py.File:
        """The file, opened and checked; raises once it was closed."""
        if self.closed:
            raise InputError(f"{self.place} is closed; open it again to read more of it")
        if self._file is None:
            with reading(self.place):
                file, size = _open(self.place)
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

    def reading(self) -> AbstractContextManager[None]:
        """Whatever goes wrong while the file is read becomes a `FileFormatError`."""
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
        self._file, self.closed = None, True
        self._groups.clear()

    def __reduce__(self) -> tuple[type[OpenFile], tuple[Path | str]]:
        return OpenFile, (self.place,)


def _open(place: Path | str) -> tuple[h5py.File, int]:
    """The file and its size in bytes."""
    if isinstance(place, str):
        return _open_remote(place)
    check_path(place)
    # as every other program in this process does by default, since HDF5 refuses a file that is open
    # with another way of locking; and without a lock where there are none, or another holds it
    for locking in (None, False, True):
        try:
            return h5py.File(place, "r", locking=locking), place.stat().st_size
        except OSError as error:
            refused = error
            if "lock" not in str(error):
                break
    raise refused


def _fsspec(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except ImportError as error:
        raise InputError(
            f"{url} cannot be opened ({error}): pip install 'fastconv[remote]'"
        ) from None
    except ValueError as error:
        raise InputError(f"{url} cannot be opened: {error}") from error


def _local_path(url: str) -> str | None:
    return _fsspec(url)[1] if url.startswith(("file://", "local://")) else None


def _open_remote(url: str) -> tuple[h5py.File, int]:
    file = _open_url(url)
    try:
        return h5py.File(file, "r"), int(file.size)
    except OSError as error:
        raise FileFormatError(f"{url} is no HDF5 file, or cannot be read: {error}") from error


def _open_url(url: str) -> Any:
    system, path = _fsspec(url)
    options = {"maxblocks": REMOTE_BLOCKS}
    try:
        return system.open(
            path, block_size=REMOTE_BLOCK, cache_type="blockcache", cache_options=options
        )
    except FileNotFoundError:
        raise FileFormatError(f"there is no file {url}") from None
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(f"cannot read {url}: {said}") from error
