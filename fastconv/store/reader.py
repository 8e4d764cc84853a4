"""Reading a finished run, with neither model nor data set; nothing in the file is trusted."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastconv.errors import UnknownLayerError
from fastconv.format.result import SampleTable
from fastconv.store import schema
from fastconv.store.codec import checksum, chunks_checksum
from fastconv.store.guard import Guard, check_root, reading
from fastconv.store.layer import Layer


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open the file of a finished run for reading.

    Raises:
        FileFormatError: no fastconv file, of a newer major version, incomplete or damaged.
    """
    run = Run(path)
    run.config, run._layers  # noqa: B018 - opens and checks the file now
    return run


class Run:
    """A finished run: `run.layers` names its layers, `run[name]` is one of them.

    The file is opened when something is first read of it; use the run in a `with` block, or call
    `close`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._guard = Guard(self.path)

    @cached_property
    def _file(self) -> h5py.File:
        with reading(self.path):
            file = h5py.File(self.path, "r", locking=False)
            try:
                check_root(self._guard, file)
            except BaseException:
                file.close()
                raise
            return file

    @cached_property
    def _run(self) -> h5py.Group:
        with reading(self.path):
            return self._guard.group(self._file, "run")

    @cached_property
    def config(self) -> dict[str, Any]:
        """What made the run: options, versions, hashes."""
        with reading(self.path):
            return self._read_config()

    @cached_property
    def _layers(self) -> dict[str, Layer]:
        with reading(self.path):
            return self._read_layers()

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
        return len(self.layers)

    @property
    def samples(self) -> SampleTable | None:
        """Keys, labels and skipped samples of the data set, when they were kept."""
        with reading(self.path):
            if "samples" not in self._run:
                return None
            group = self._guard.group(self._run, "samples")
            count = self._guard.attribute(group, "count")
            if not isinstance(count, int):
                raise self._guard.fail("the number of samples is missing")
            table = SampleTable(count)
            if "key" in group:
                keys = self._guard.plain_dataset(group, "key")
                if keys.shape != (count,) or keys.dtype.kind != "S":
                    raise self._guard.fail(f"{keys.name} does not name {count} samples")
                table.keys = [key.decode("utf-8", "replace") for key in keys[()]]
            sizes = {"sample": count}
            if "label" in group:
                field = schema.Field("<i8", ("sample",))
                table.labels = self._guard.dataset(group, "label", field, sizes)[()]
            if "skipped" in group:
                field = schema.Field("<i8", ("skipped",))
                table.skipped = self._guard.dataset(group, "skipped", field, sizes)[()].tolist()
            return table

    @property
    def attributes(self) -> dict[str, Any]:
        """Version and times: what is known of the file but is no result."""
        with reading(self.path):
            owners = (
                (self._file, ("creator_version", "fastconv_format_version", "file_time")),
                (self._run, ("start_time", "end_time")),
            )
            found = {n: self._guard.attribute(owner, n) for owner, ns in owners for n in ns}
        return {name: value for name, value in found.items() if value is not None}

    def digest(self) -> str:
        """SHA-256 over name, dtype, shape and bytes of every dataset, in order of the names."""
        sha = hashlib.sha256()
        with reading(self.path):
            for path, dataset in self._datasets():
                sha.update(f"{path}\0{dataset.dtype.str}\0{dataset.shape}\0".encode())
                for block in blocks(dataset):
                    sha.update(block)
        return sha.hexdigest()

    def damaged(self) -> list[str]:
        """The datasets whose bytes are not those that were written, by their checksums."""
        with reading(self.path):
            return [path for path, dataset in self._datasets() if not self._intact(dataset)]

    def _intact(self, dataset: h5py.Dataset) -> bool:
        """Whether the checksums of a dataset hold; true where there are none."""
        checks = {
            "crc32": lambda: checksum(blocks(dataset)),
            "chunks_crc32": lambda: chunks_checksum(dataset),
        }
        stored = {name: self._guard.attribute(dataset, name) for name in checks}
        try:
            return all(v is None or v == checks[name]() for name, v in stored.items())
        except (OSError, ValueError):  # deflate has noticed, or chunks are missing
            return False

    def close(self) -> None:
        """Close the file; what is read afterwards opens it again."""
        if "_file" in self.__dict__:
            self._file.close()
        for name in ("_file", "_run", "_layers"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<fastconv.Run {self.path}: {len(self)} layers>"

    def _datasets(self) -> Iterator[tuple[str, h5py.Dataset]]:
        """Every dataset of the run's file, then of the files of maps."""
        yield from _walk(self._guard, self._file)
        for layer in self._layers.values():
            with layer.maps_file() as (guard, _, file):
                if file is not None:
                    yield from _walk(guard, file)

    def _read_config(self) -> dict[str, Any]:
        config = json.loads(self._guard.text(self._run, "config_json"))
        if not isinstance(config, dict):
            raise self._guard.fail("/run/config_json is no JSON object")
        return config

    def _read_layers(self) -> dict[str, Layer]:
        group = self._guard.group(self._run, "layers")
        layers: dict[str, Layer] = {}
        for child in self._guard.names(group):
            layer = Layer(self._guard, self._guard.group(group, child))
            if schema.escape(layer.name) != child or layer.name in layers:
                raise self._guard.fail(f"{child!r} does not hold the layer {layer.name!r}")
            layers[layer.name] = layer
        return layers


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
