"""Files at URLs of fsspec, fetched in blocks as they are needed."""

from __future__ import annotations

import gc
import io
import os
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any

from fastconv.errors import FileFormatError, InputError

BLOCK = 2**12  # bytes
MAX_BLOCKS = 2**14  # that are kept
SMALL, AROUND = 2**12, 6  # bytes of a read that is of metadata; blocks that are fetched with it
GAP = 24 * 2**10  # bytes between two ranges that are fetched at once


def is_url(place: str) -> bool:
    return "://" in place


def local_path(url: str) -> str | None:
    """The path of a URL that names a file of this machine; None for others."""
    return file_system(url)[1] if url.startswith(("file://", "local://")) else None


def open_url(url: str) -> RemoteFile:
    """A file object at a URL that fetches what is read of it, in blocks.

    Raises:
        FileFormatError: there is no such file, or it cannot be read.
        InputError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    system, path = file_system(url)
    try:
        size = system.size(path)
    except FileNotFoundError:
        raise FileFormatError(f"there is no file {url}") from None
    except Exception as error:
        raise FileFormatError(f"cannot read {url}: {first_line(error)}") from error
    if size is None:
        raise FileFormatError(f"cannot read {url}: the server does not say its size; download it")
    return RemoteFile(system, path, int(size), url)


class RemoteFile(io.RawIOBase):
    """Reads a file of fsspec; blocks are kept, and missing neighbours come in one request.

    The caches of fsspec fetch every block by itself, or forget what was fetched before.

    Raises:
        FileFormatError: it cannot be read any more.
    """

    def __init__(self, system: Any, path: str, size: int, url: str) -> None:
        self._system, self._path, self.size, self._url = system, path, size, url
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        start, stop = self._at, min(self._at + len(buffer), self.size)
        if start >= stop:
            return 0
        wanted = range(start // BLOCK, (stop - 1) // BLOCK + 1)
        self._fetch(self._around(wanted) if stop - start <= SMALL else wanted)
        found = b"".join(self._blocks[block] for block in wanted)
        first = wanted.start * BLOCK
        buffer[: stop - start] = found[start - first : stop - first]
        for block in wanted:
            self._blocks.move_to_end(block)
        while len(self._blocks) > MAX_BLOCKS:
            self._blocks.popitem(last=False)
        self._at = stop
        return stop - start

    def _around(self, blocks: range) -> range:
        """These blocks of metadata and their neighbours: what is needed next lies near them."""
        if all(block in self._blocks for block in blocks):
            return blocks
        first, stop = blocks.start // AROUND, -(-blocks.stop // AROUND)
        have = {group: group * AROUND in self._blocks for group in range(first - 2, stop + 2)}
        first -= have[first - 2] and not have[first - 1]  # a hole between them is filled
        stop += (have[stop + 1] and not have[stop]) or first == 0  # the names of layers are there
        return range(first * AROUND, stop * AROUND)

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch (start, stop) of the file beforehand; neighbours in one request."""
        joined: list[list[int]] = []
        for start, stop in sorted(ranges):
            if joined and start - joined[-1][1] <= GAP:
                joined[-1][1] = max(stop, joined[-1][1])
            else:
                joined.append([max(start, 0), stop])
        for start, stop in joined:
            self._fetch(range(start // BLOCK, -(-stop // BLOCK)))

    def _fetch(self, blocks: range) -> None:
        """Fetch those of the blocks that are in the file and not here."""
        last = -(-self.size // BLOCK)
        for run in _runs([b for b in blocks if b < last and b not in self._blocks]):
            fetched = self._get(run.start * BLOCK, min(run.stop * BLOCK, self.size))
            for i, block in enumerate(run):
                self._blocks[block] = fetched[i * BLOCK : (i + 1) * BLOCK]

    def _get(self, start: int, stop: int) -> bytes:
        try:
            with _no_collection:
                found = self._system.cat_file(self._path, start=start, end=stop)
        except Exception as error:
            raise FileFormatError(f"cannot read {self._url}: {first_line(error)}") from error
        if len(found) > stop - start:
            raise FileFormatError(
                f"cannot read {self._url}: its server sends whole files only; download it first"
            )
        if len(found) < stop - start:
            raise FileFormatError(f"{self._url} was cut off after {start + len(found)} bytes")
        return found


class _NoCollection:
    """Keep other threads from collecting garbage while h5py waits for them.

    h5py holds a lock while it reads, and takes it to free what it made. A thread of the file
    system that happened to collect such an object would wait for the reader, and the reader for
    it, for ever. Several threads may be inside at once.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._enabled = Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._enabled = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        if self._enabled:
            gc.collect(0)  # here, so that none falls due in the other thread as it ends
        with self._lock:
            self._inside -= 1
            if self._enabled and not self._inside:
                gc.enable()


_no_collection = _NoCollection()


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _runs(blocks: list[int]) -> list[range]:
    """Consecutive numbers as ranges."""
    runs: list[range] = []
    for block in blocks:
        if runs and runs[-1].stop == block:
            runs[-1] = range(runs[-1].start, block + 1)
        else:
            runs.append(range(block, block + 1))
    return runs


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except ImportError as error:
        said = f"{url} cannot be opened ({error})"
        raise InputError(f"{said}: pip install 'fastconv[remote]'") from None
    except ValueError as error:
        raise InputError(f"{url} cannot be opened: {error}") from error
