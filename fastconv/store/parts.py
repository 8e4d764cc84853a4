"""Finished work of a run that is not finished: `run.h5.parts/`.

`manifest.json` says what the run is, `end.json` where a stream has ended;
`u<first>-<last>-<crc32>.h5` holds what was measured in units first..last (a unit is one batch). A
part appears by rename once its bytes are on the disk, so a part that exists is done; everything in
it merges exactly, however units fell into parts.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastconv.errors import DataError, FileFormatError, OutputError
from fastconv.format.result import LayerInfo, LayerResult, Pictures
from fastconv.store import codec, lock
from fastconv.store.atomic import abandon, close, disk_error, explain, open_new, reserve, sync
from fastconv.store.distinct import distinct_hits
from fastconv.store.schema import maps_folder

_NAME = re.compile(r"u(\d+)-(\d+)-([0-9a-f]{8})\.h5")


class Part:
    """Units first..last, read layer by layer: a finished part, or the open `file` of one."""

    def __init__(self, path: Path, first: int, last: int, file: h5py.File | None = None):
        self.path, self.first, self.last, self._file = path, first, last, file

    @classmethod
    def finished(cls, path: Path) -> Part:
        """The part of this file, which is named after its units."""
        match = _NAME.fullmatch(path.name)
        assert match is not None
        return cls(path, int(match[1]), int(match[2]))

    def check(self) -> None:
        """Raise FileFormatError unless the bytes are those that were written."""
        if not self.path.stem.endswith(f"-{_crc32(self.path)}"):
            raise FileFormatError(
                f"{self.path} is damaged: its checksum differs from the one in its name; "
                "delete it and run again, then only its samples are computed anew"
            )

    @contextlib.contextmanager
    def open(self) -> Iterator[h5py.File]:
        """The file, which is opened once as long as any `open` lasts."""
        if self._file is not None:
            yield self._file
            return
        with h5py.File(self.path, "r") as self._file:
            try:
                yield self._file
            finally:
                self._file = None

    def layer(
        self, index: int, info: LayerInfo, *, hits: bool = True, totals: bool = True
    ) -> LayerResult:
        """Read what the part holds of one layer; hits of other parts are empty slots."""
        with self.open() as file:
            group = file[f"layers/{index}"]
            result = LayerResult(info, None)
            if totals:
                result.stats = {name: data[()] for name, data in group.get("stats", {}).items()}
                result.histogram = group["histogram"][()] if "histogram" in group else None
            if not hits:
                return result
            for name, stored in group.get("hits", {}).items():
                arrays = {field: data[()] for field, data in stored.items()}
                pool, row = arrays.pop("pictures", None), arrays.pop("picture_of", None)
                result.set_hits(name, arrays, None if pool is None else Pictures(pool, row))
            return result

    def rows(self, name: str) -> np.ndarray | None:
        """The rows that the part adds to a per-sample table, or None."""
        with self.open() as file:
            return file[name][()] if name in file else None

    def maps(self, index: int) -> Iterator[h5py.Dataset]:
        """The maps of one layer, one dataset a batch, open until the next is asked for."""
        with self.open() as file:
            for name in sorted(file.get(f"maps/{index}", ())):
                yield file[f"maps/{index}/{name}"]


class PartWriter:
    """A part being written: tables grow as batches come, states are added at the end."""

    def __init__(self, folder: PartsFolder, first: int):
        self._folder = folder
        self.first = first
        self._temporary = folder.path / f"tmp-{uuid.uuid4().hex}"
        with _writing(self._temporary):
            self._file = open_new(self._temporary)

    def append(self, name: str, rows: np.ndarray) -> None:
        """Add rows to the per-sample table `name`."""
        with _writing(self._temporary):
            reserve(self._file.id, rows.nbytes)
            if name not in self._file:
                shape = (None, *rows.shape[1:])
                self._file.create_dataset(name, data=rows, maxshape=shape, chunks=rows.shape)
                return
            table = self._file[name]
            table.resize(len(table) + len(rows), 0)
            table[-len(rows) :] = rows

    def add_maps(
        self, layer: int, first: int, rows: np.ndarray, total: tuple[int, ...], keepbits: int
    ) -> None:
        """Add the maps of one batch in the chunks of the final dataset of shape `total`.

        `first` is its first sample. They are rounded and compressed meanwhile, so `rows` must not
        change any more.
        """
        with _writing(self._temporary):
            reserve(self._file.id)
            chunk = codec.chunk_shape(total, rows.itemsize, codec.MAP_ROWS)
            chunk = (min(chunk[0], len(rows)), *chunk[1:])
            group = self._file.require_group(f"maps/{layer}")
            self._add_chunks(group, f"{first:012d}", rows, chunk, keepbits)

    def _add_chunks(
        self,
        group: h5py.Group,
        name: str,
        values: np.ndarray,
        chunk: Sequence[int] | None = None,
        keepbits: int = 23,
    ) -> None:
        """Add an array that does not change any more; it is compressed meanwhile."""
        chunk = chunk or codec.chunk_shape(values.shape, values.itemsize)
        table = codec.create_chunked(group, name, values.shape, values.dtype.str, chunk)
        writer = codec.ChunkWriter(table, self._folder.compressor, keepbits=keepbits)
        writer.append(values)
        writer.close()

    def add_layer(self, index: int, result: LayerResult) -> None:
        """Add the state of one layer; its hits are those whose sample belongs to this part."""
        with _writing(self._temporary):
            reserve(self._file.id, sum(array.nbytes for array in _arrays(result)))
            group = self._file.create_group(f"layers/{index}")
            for name, value in result.stats.items():
                group[f"stats/{name}"] = value
            if result.histogram is not None:
                self._add_chunks(group, "histogram", result.histogram)
            for name, arrays, pictures in result.hit_sets():
                for field, value in arrays.items():
                    group[f"hits/{name}/{field}"] = value
                if pictures is not None:
                    found = distinct_hits(arrays, result.patch_plan)
                    group[f"hits/{name}/pictures"] = pictures[found.filter, found.rank]
                    group[f"hits/{name}/picture_of"] = found.row

    def so_far(self, last: int) -> Part:
        """What was added of the units up to `last`, to be read until more is added."""
        with _writing(self._temporary):
            self._folder.compressor.drain()
        return Part(self._temporary, self.first, last, self._file)

    def finish(self, last: int) -> Part:
        """Close, sync and rename: from here on the units first..last are done."""
        with _writing(self._temporary):
            self._folder.compressor.drain()
            close(self._file, self._temporary)
            crc = _crc32(self._temporary)
            path = self._folder.path / f"u{self.first:06d}-{last:06d}-{crc}.h5"
            self._temporary.rename(path)
            sync(self._folder.path)
        return Part(path, self.first, last)

    def discard(self) -> None:
        """Drop what was not finished."""
        self._folder.compressor.drop()
        abandon(self._file, self._temporary)


class PartsFolder:
    """The folder of parts of one output, held by one process at a time, or `shared` by several."""

    def __init__(self, out: Path, *, shared: bool = False):
        self.out, self._shared = out, shared
        self.path = out.with_name(out.name + ".parts")
        self.compressor = codec.Compressor()
        self._lock: int | None = None

    def __enter__(self) -> PartsFolder:
        if not self._shared:
            self._lock = lock.take(self.path, self.out.name)
            self._sweep()
            return self
        self._lock, alone = lock.join(self.path, self.out.name)
        if alone:
            self._sweep()
            lock.share(self._lock)
        return self

    @contextlib.contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Inside, no other process that shares the folder is inside under that name."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError):  # the folder is gone: nobody else is
                held = lock.claim(self.path / f"{what}.lock", wait=True)
                assert held is not None
                stack.callback(lock.release, held)
            yield

    def claim(self, name: str) -> int | None:
        """Hold a share of the work until `lock.release`; None where another process does."""
        with contextlib.suppress(FileNotFoundError):
            return lock.claim(self.path / f"{name}.claim")
        return None

    def claimed(self) -> set[str]:
        """Names that some process has claimed, now or before."""
        return {path.stem for path in self.path.glob("*.claim")}

    def done(self) -> set[int]:
        """The units that finished parts hold, by their names."""
        found = filter(None, (_NAME.fullmatch(path.name) for path in self.path.glob("u*.h5")))
        return {unit for name in found for unit in range(int(name[1]), int(name[2]) + 1)}

    def _sweep(self) -> None:
        """Remove what a killed process has left unfinished."""
        out = self.path.with_name(self.out.name)
        for folder, pattern in (
            (self.path, "tmp-*"),
            (out.parent, f".{glob.escape(self.out.name)}.*.tmp"),
            (maps_folder(out), ".*.tmp"),
        ):
            for stale in folder.glob(pattern):
                stale.unlink()

    def __exit__(self, kind: type | None, *exc: object) -> None:
        if (
            kind is not None
            and not self._shared
            and not any(_NAME.fullmatch(p.name) for p in self.path.iterdir())
        ):
            self.remove()  # nothing was finished: leave nothing behind
        if self._lock is not None:
            lock.release(self._lock)
            self._lock = None
        self.compressor.close()

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, or None in a new folder."""
        return self._read_json("manifest.json")

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        self._write_json("manifest.json", manifest)

    def write_end(self, length: int) -> None:
        """Note the number of samples of a stream, which some process has read to its end.

        Raises:
            DataError: another one was noted before.
        """
        before = self.end()
        if before not in (None, length):
            raise DataError(
                f"the stream has changed: it ended after {length} samples, before after {before}"
            )
        try:
            if before is None:
                self._write_json("end.json", {"length": length})
        except OutputError:
            if not self.out.exists():  # or else another process has finished, meanwhile
                raise

    def end(self) -> int | None:
        """The number of samples that was noted."""
        noted = self._read_json("end.json")
        return None if noted is None else int(noted["length"])

    def parts(self) -> list[Part]:
        """All finished parts, checked, in the order of their units."""
        found = [Part.finished(p) for p in sorted(self.path.iterdir()) if _NAME.fullmatch(p.name)]
        for part in found:
            part.check()
        return found

    def clear(self) -> None:
        """Forget all finished work."""
        for path in self.path.iterdir():
            if path.suffix != ".lock" and path.name != "lock":
                path.unlink()

    def remove(self) -> None:
        """The run is finished: the folder is not needed any more."""
        shutil.rmtree(self.path, ignore_errors=True)  # the file stands, whatever is left

    def _read_json(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        except (ValueError, UnicodeDecodeError) as error:
            raise FileFormatError(
                f"{self.path / name} is damaged ({error}); delete the folder to start anew"
            ) from error

    def _write_json(self, name: str, values: dict[str, Any]) -> None:
        temporary = self.path / f"tmp-{uuid.uuid4().hex}"
        with _writing(temporary):
            temporary.write_text(json.dumps(values, indent=1, sort_keys=True))
            sync(temporary)
            temporary.rename(self.path / name)
            sync(self.path)


def remove_parts(out: Path) -> None:
    """Remove the folder of parts of a finished file, unless a process is at work there."""
    if not out.with_name(out.name + ".parts").exists():
        return
    with contextlib.suppress(OutputError), PartsFolder(out) as folder:
        folder.remove()


def _arrays(result: LayerResult) -> list[Any]:
    found = [*result.stats.values(), result.histogram]
    for _, arrays, pictures in result.hit_sets():
        found += [*arrays.values(), pictures]
    return [array for array in found if array is not None]


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        refused = disk_error(error)
        if refused is None:
            raise
        said = explain(refused, path.parent)
        raise OutputError(f"{said}; the parts that are finished are kept") from error


def _crc32(path: Path) -> str:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = codec.checksum([block], crc)
    return f"{crc:08x}"
