"""Reading a finished run, with neither model nor data set; nothing in the file is trusted."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from fastconv.errors import InputError, UnknownLayerError
from fastconv.format.result import LayerInfo, SampleTable
from fastconv.store import schema
from fastconv.store.codec import checksum, chunks_checksum
from fastconv.store.guard import Guard
from fastconv.store.open_file import OpenFile
from fastconv.store.outcomes import Outcomes
from fastconv.store.read_layer import Layer
from fastconv.store.read_samples import read_samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open the file of a finished run for reading.

    Args:
        path: a path, or a URL that fsspec opens (`s3://bucket/run.h5`; extra `[remote]`), of which
            only the parts that are asked for are fetched.

    Raises:
        FileFormatError: no fastconv file, of a newer major version, incomplete or damaged.
        InputError: a URL of an unknown kind, or fsspec is not installed.
    """
    run = Run(path)
    run.config, run._layers  # noqa: B018 - opens and checks the file now
    return run


class Run:
    """A finished run: `run.layers` names its layers, `run[name]` is one of them.

    The file is opened when something is first read of it; use the run in a `with` block, or call
    `close`, after which nothing more is read. A run can be pickled: it opens its file anew.

    Attributes:
        path: the path of the file, or its URL.

    Raises:
        FileFormatError: no fastconv file, of a newer major version, incomplete or damaged.
        InputError: the run is closed, or did not keep what is asked for.

    Example:
        >>> import fastconv
        >>> with fastconv.open(example) as run:
        ...     run.layers, len(run), run["conv1"].info.channels
        (['conv1'], 1, 6)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = OpenFile(path)
        self.path: Any = self._file.place  # Path, or the URL as text
        self._file.check_path()

    @property
    def config(self) -> dict[str, Any]:
        """Options, versions and hashes that made the run."""
        return self._file.config

    @property
    def order(self) -> str:
        """Of the hits: "largest", "smallest", or "both"."""
        return self._file.order

    @cached_property
    def _layers(self) -> dict[str, Layer]:
        run = self._file.group("run")
        with self._file.reading():
            found: dict[str, Layer] = {}
            for child, info in _infos(self._file, run):
                if schema.escape(info.name) != child or info.name in found:
                    raise self._file.guard.fail(f"{child!r} does not hold the layer {info.name!r}")
                found[info.name] = Layer(self._file, info, ("run", "layers", child))
            return found

    @property
    def layers(self) -> list[str]:
        """The names of the layers, in forward order."""
        return list(self._layers)

    def __getitem__(self, name: str) -> Layer:
        try:
            return self._layers[name]
        except (KeyError, TypeError):
            near = difflib.get_close_matches(str(name), self.layers, 3, 0.4)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {self.layers[:8]}"
            raise UnknownLayerError(f"no layer {name!r} in {self.path}; {hint}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.layers

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self._layers)

    @cached_property
    def samples(self) -> SampleTable | None:
        """Keys, labels, outcomes and columns of the samples, when they were kept."""
        return read_samples(self._file)

    @property
    def outcomes(self) -> Outcomes:
        """label, prediction, confidence and correct of every sample, by name; empty if not kept."""
        return Outcomes(SampleTable(0) if self.samples is None else self.samples)

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        """Further columns of the data set by name, [N] int64, float64 or text; empty if none."""
        return {} if self.samples is None else self.samples.columns  # type: ignore[return-value]

    @property
    def classes(self) -> list[str] | None:
        """The names of the labels, when they are known; those that are double have a number."""
        return None if self.samples is None else self.samples.class_names()

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions under which every layer was measured as well."""
        with self._file.reading():
            return tuple(map(str, self._described("conditions_json")))

    @cached_property
    def graph(self) -> list[tuple[str, str]]:
        """Edges of the network: pairs of layers, the second reads the first; empty if not kept."""
        with self._file.reading():
            return [(str(source), str(target)) for source, target in self._described("graph_json")]

    def _described(self, name: str) -> list[Any]:
        run = self._file.group("run")
        return json.loads(self._file.guard.text(run, name)) if name in run else []

    def thumbnail(self, sample: int) -> np.ndarray | None:
        """The reduced picture [h, w, 3] uint8 of a sample with a hit or maps; None if not kept."""
        thumbnails = {} if self.samples is None else self.samples.thumbnails
        return thumbnails.get(sample)

    @property
    def attributes(self) -> dict[str, Any]:
        """Version and times: what is known of the file but is no result."""
        root, run = self._file.root, self._file.group("run")
        with self._file.reading():
            owners = (
                (root, ("creator_version", "fastconv_format_version", "file_time")),
                (run, ("start_time", "end_time")),
            )
            found = {n: self._file.guard.attribute(owner, n) for owner, ns in owners for n in ns}
        return {name: value for name, value in found.items() if value is not None}

    def to_xarray(self) -> xarray.DataTree:
        """The whole file as a tree of named, lazily read arrays.

        Layers are `/run/layers/<name>`, where names are escaped as docs/file-format.md says. Close
        the tree when it is no longer needed.

        Raises:
            InputError: xarray or h5netcdf is not installed.
        """
        try:
            from xarray import open_datatree

            self._file.root  # noqa: B018 - complete, and ours
            return open_datatree(self._file.for_others(), engine="h5netcdf", phony_dims="access")
        except ImportError as error:
            raise InputError(f"{error.name} is missing: pip install xarray h5netcdf") from None

    def digest(self) -> str:
        """SHA-256 over name, dtype, shape and bytes of every dataset, in order of the names."""
        sha = hashlib.sha256()
        with self._file.reading():
            for path, dataset in self._datasets():
                sha.update(f"{path}\0{dataset.dtype.str}\0{dataset.shape}\0".encode())
                for block in blocks(dataset):
                    sha.update(block)
        return sha.hexdigest()

    def damaged(self) -> list[str]:
        """The datasets whose bytes are not those that were written, by their checksums."""
        with self._file.reading():
            return [path for path, dataset in self._datasets() if not self._intact(dataset)]

    def _intact(self, dataset: h5py.Dataset) -> bool:
        """Whether the checksums of a dataset hold; true where there are none."""
        checks = {
            "crc32": lambda: checksum(blocks(dataset)),
            "chunks_crc32": lambda: chunks_checksum(dataset),
        }
        stored = {name: self._file.guard.attribute(dataset, name) for name in checks}
        try:
            return all(v is None or v == checks[name]() for name, v in stored.items())
        except (OSError, ValueError):  # deflate has noticed, or chunks are missing
            return False

    def close(self) -> None:
        """Close the file; what was not read by now cannot be read any more."""
        self._file.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _repr_html_(self) -> str | None:
        from fastconv.draw.notebook import run_html

        return run_html(self)

    def __repr__(self) -> str:
        return f"<fastconv.Run {self.path}: {len(self)} layers>"

    def __reduce__(self) -> tuple[type[Run], tuple[Path | str]]:
        return Run, (self.path,)

    def _datasets(self) -> Iterator[tuple[str, h5py.Dataset]]:
        """Every dataset of the run's file, then of the files of maps."""
        root = self._file.root
        yield from _walk(self._file.guard, root)
        for layer in self._layers.values():
            with layer.stored_maps.file() as (_, beside):
                if beside is not None:
                    yield from _walk(beside.guard, beside.root)


def _infos(file: OpenFile, run: h5py.Group) -> Iterator[tuple[str, LayerInfo]]:
    """The name of the group of every layer, and what is known of the layer."""
    if "layers_json" in run:
        for info in schema.infos_from_json(file.guard.text(run, "layers_json")):
            yield schema.escape(info.name), info
        return
    for child in file.guard.names(file.group("run", "layers")):  # format 1
        text = file.guard.text(file.group("run", "layers", child), "info_json")
        yield child, schema.info_from_json(text)


def _walk(
    guard: Guard, group: h5py.Group, path: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset of the file with its path, in order of the names."""
    here = _identity(group)
    if here in above:
        raise guard.fail(f"{path} contains itself")
    for name in sorted(guard.names(group)):
        child = f"{path}/{name}"
        if isinstance(found := guard.member(group, name), h5py.Group):
            yield from _walk(guard, found, child, above | {here})
        else:
            yield child, guard.plain_dataset(group, name)


def _identity(group: h5py.Group) -> tuple[int, int]:
    info = h5py.h5o.get_info(group.id)
    return info.fileno, info.addr


def blocks(dataset: h5py.Dataset, budget: int = 2**23) -> Iterator[bytes]:
    """The bytes of a dataset in C order, a few megabytes at a time."""
    if dataset.dtype.kind == "O":  # text of any length
        yield repr(np.asarray(dataset[()]).tolist()).encode()
    elif dataset.ndim == 0:
        yield dataset[()].tobytes()
    else:
        step = dataset.chunks[0] if dataset.chunks else 1
        row = max(1, dataset.nbytes // max(1, dataset.shape[0]))
        step *= max(1, budget // (row * step))
        for start in range(0, dataset.shape[0], step):
            yield np.ascontiguousarray(dataset[start : start + step]).tobytes()
