"""Access to a file that may be damaged or hostile: everything is checked before it is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from fastconv.errors import FastconvError, FileFormatError
from fastconv.store.schema import FORMAT_VERSION, Field

# shuffle, deflate, fletcher32: the filters that every HDF5 library has
KNOWN_FILTERS = {1, 2, 3}
MAX_INFLATION = 1100  # deflate cannot shrink more than 1032 times
MAX_ATTRIBUTE = 2**16


_PLAIN = (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeStringID)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn every error of a damaged file that is raised inside into a `FileFormatError`."""
    try:
        yield
    except FastconvError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{path} is damaged: {_first_line(error)}") from error
    except (MemoryError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"{path} is damaged: it declares what cannot be held") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


class Guard:
    """Opens groups, datasets and attributes of one file by name, never following links."""

    def __init__(self, path: Path | str, size: int) -> None:
        self.path, self.size = path, size

    def fail(self, what: str) -> FileFormatError:
        return FileFormatError(f"{self.path} is damaged: {what}")

    def group(self, parent: h5py.Group, name: str) -> h5py.Group:
        found = self.member(parent, name)
        if not isinstance(found, h5py.Group):
            raise self.fail(f"{parent.name}/{name} is no group")
        return found

    def dataset(
        self, parent: h5py.Group, name: str, field: Field, sizes: dict[str, int]
    ) -> h5py.Dataset:
        """A dataset of this dtype; `sizes` binds the named dimensions of one group."""
        found = self.plain_dataset(parent, name)
        if found.dtype != np.dtype(field.dtype):
            raise self.fail(f"{found.name} is {found.dtype}, not {np.dtype(field.dtype)}")
        expected = [sizes.get(dim, -1) for dim in field.dims]
        if len(found.shape) != len(expected) or any(
            want not in (-1, got) for want, got in zip(expected, found.shape, strict=False)
        ):
            raise self.fail(f"{found.name} has the shape {found.shape}, not {field.dims}")
        sizes.update(zip(field.dims, found.shape, strict=True))
        return found

    def plain_dataset(self, parent: h5py.Group, name: str) -> h5py.Dataset:
        """A dataset whose values lie in this very file and fit into memory."""
        found = self.member(parent, name)
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise self.fail(f"{parent.name}/{name} is no dataset")
        plist = found.id.get_create_plist()
        if found.is_virtual or plist.get_external_count():
            raise self.fail(f"{found.name} points to another file")
        filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
        if not filters <= KNOWN_FILTERS:
            raise self.fail(f"{found.name} is packed with unknown filters {sorted(filters)}")
        if found.maxshape != found.shape or (
            found.chunks is not None
            and any(c > n for c, n in zip(found.chunks, found.shape, strict=True))
        ):
            raise self.fail(f"{found.name} declares more than it holds")
        if found.chunks is not None and found.nbytes <= self.size:
            return found  # harmless; adding up its chunks would read the whole index of them
        stored = found.id.get_storage_size()
        if stored > self.size or found.nbytes > MAX_INFLATION * stored + MAX_ATTRIBUTE:
            raise self.fail(f"{found.name} declares {found.nbytes} bytes and holds {stored}")
        return found

    def text(self, parent: h5py.Group, name: str) -> str:
        """A scalar string of fixed length."""
        found = self.plain_dataset(parent, name)
        if found.shape != () or found.dtype.kind != "S":
            raise self.fail(f"{found.name} is no text")
        return found[()].decode()

    def attribute(self, owner: h5py.Group, name: str) -> str | int | float | None:
        """A scalar attribute; None where it is missing."""
        if not h5py.h5a.exists(owner.id, name.encode()):
            return None
        found = h5py.h5a.open(owner.id, name.encode())
        if found.shape != () or found.get_storage_size() > MAX_ATTRIBUTE:
            raise self.fail(f"the attribute {name} of {owner.name} is no scalar")
        kind = found.get_type()  # text of variable length would be read from a heap: see docs
        if not isinstance(kind, _PLAIN) or (
            isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
        ):
            raise self.fail(f"the attribute {name} of {owner.name} is neither number nor text")
        value = owner.attrs[name]
        if isinstance(value, bytes):
            return value.decode()
        return value.item() if isinstance(value, np.generic) else value

    def names(self, group: h5py.Group) -> Iterator[str]:
        for name in group:
            if not isinstance(name, str):
                raise self.fail(f"{group.name} has a child whose name is no text")
            yield name

    def member(self, parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
        link = parent.get(name, getlink=True)
        if link is None:
            raise self.fail(f"{parent.name}/{name} is missing")
        if not isinstance(link, h5py.HardLink):
            raise self.fail(f"{parent.name}/{name} is a link to somewhere else")
        return parent[name]


def check_path(path: Path) -> None:
    """Say plainly what is wrong with a path that cannot be an HDF5 file at all."""
    if not path.exists():
        raise FileFormatError(f"there is no file {path}")
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; give the name of a file")
    if not os.access(path, os.R_OK):
        raise FileFormatError(f"cannot read {path}: permission denied")
    with path.open("rb") as file:
        empty = not file.read(1)
    if empty or not h5py.is_hdf5(path):
        raise FileFormatError(f"{path} is no HDF5 file")


def check_root(guard: Guard, file: h5py.File) -> None:
    """Only complete files of a known major version are read."""
    if guard.attribute(file, "creator") != "fastconv":
        raise FileFormatError(f"{guard.path} was not written by fastconv")
    version = guard.attribute(file, "fastconv_format_version")
    try:
        major = int(str(version).split(".")[0])
    except ValueError:
        raise guard.fail(f"its format version is {version!r}") from None
    known = int(FORMAT_VERSION.split(".")[0])
    if major > known:
        raise FileFormatError(
            f"{guard.path} has format version {version}, this fastconv reads up to {known}.x: "
            "a newer fastconv reads it"
        )
    if guard.attribute(file, "complete") != 1:
        raise FileFormatError(
            f"{guard.path} is incomplete: its writing was interrupted; run it again"
        )
