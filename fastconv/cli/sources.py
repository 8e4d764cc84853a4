"""DATA on the command line: a folder of files, an array in a file, or a factory."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastconv.cli.models import call_factory
from fastconv.data import MediaFolder, TarShards
from fastconv.errors import DataError, InputError

_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")


def open_source(spec: str, **files: Any) -> Any:
    """What `spec` names, as `open_data` takes it.

    Args:
        spec: a folder of files or of tar shards, `shard.tar`, `array.npy` (mapped, not loaded),
            `arrays.npz` or `arrays.npz:name`, `file.h5:dataset`, `file.py:factory` or
            `package.module:factory`.
        files: how files are read: options of `MediaDataset`.

    Raises:
        InputError: nothing that can be read under that name.
    """
    given = {
        name: value for name, value in files.items() if value is not None and value is not False
    }
    if Path(spec).suffix == ".tar" and Path(spec).is_file():
        return TarShards([spec], **given)
    if Path(spec).is_dir():
        shards = sorted(Path(spec).glob("*.tar"))
        return TarShards(shards, **given) if shards else _folder(spec, given)
    if given:
        raise InputError(
            "--size, --mean and --std are for folders of images, and so are --fit, --range, "
            f"--channels, --as-stored and --frames; {spec} is none"
        )
    place, name = _split(spec)
    if place.suffix == ".npy":
        return _numpy(place)
    if place.suffix == ".npz":
        return _npz(place, name)
    if place.suffix in _HDF5:
        return H5Array(place, name)
    if ":" in spec:
        return call_factory(spec, "DATA")
    raise DataError(
        f"there is no {spec}; DATA is a folder of images (or scans, sounds, videos), an .npy or "
        ".npz file, file.h5:dataset, file.py:factory or package.module:factory"
    )


def _folder(spec: str, options: dict[str, Any]) -> MediaFolder:
    """Its remarks (on files that are left out, say) in one line each on stderr."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        folder = MediaFolder(spec, **options)
    for remark in remarks:
        print(f"fastconv: {remark.message}", file=sys.stderr)
    return folder


class H5Array:
    """An HDF5 data set that is opened for each read, so that no process holds the file."""

    def __init__(self, file: Path, name: str | None):
        self.file = file
        try:
            with h5py.File(_existing(file), "r") as h5:
                self.name = name or _only_dataset(h5, file)
                found = h5.get(self.name)
                if not isinstance(found, h5py.Dataset):
                    raise DataError(f"{file} has no data set {name!r}; it has {_datasets(h5)}")
                self.shape, self.dtype = found.shape, found.dtype
        except OSError as error:
            raise DataError(f"{file} cannot be opened as HDF5: {error}") from error

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        with h5py.File(self.file, "r") as h5:
            return h5[self.name][rows]


def _split(spec: str) -> tuple[Path, str | None]:
    """The file and the name inside it."""
    place, _, name = spec.rpartition(":")
    if Path(place).suffix in (".npz", *_HDF5):
        return Path(place), name
    return Path(spec), None


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise DataError(f"there is no file {file}")
    return file


def _numpy(file: Path) -> np.ndarray:
    try:
        return np.load(_existing(file), mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file} is not an array of numbers: {error}") from error


def _npz(file: Path, name: str | None) -> np.ndarray:
    try:
        with np.load(_existing(file), allow_pickle=False) as arrays:
            if not arrays.files or (name and name not in arrays.files):
                raise DataError(f"{file} has no array {name!r}; it has {', '.join(arrays.files)}")
            return arrays[name or arrays.files[0]]
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is not an archive of arrays of numbers: {error}") from error


def _only_dataset(h5: h5py.File, file: Path) -> str:
    names = _datasets(h5)
    if len(names) != 1:
        raise DataError(f"{file} holds {len(names)} data sets; give one as {file}:NAME: {names}")
    return names[0]


def _datasets(h5: h5py.File) -> list[str]:
    names: list[str] = []
    h5.visititems(lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) else None)
    return names[:10]
