"""Files at URLs that fsspec opens, fetched in blocks as they are needed."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import Any

from fastconv.errors import FileFormatError, InputError

BLOCK = 2**15  # bytes: the small arrays of a layer lie side by side
MAX_BLOCKS = 2048  # that are kept


def is_url(place: str) -> bool:
    return "://" in place


def local_path(url: str) -> str | None:
    """The path of a URL that names a file of this machine; None for others."""
    return _file_system(url)[1] if url.startswith(("file://", "local://")) else None


def open_url(url: str) -> RemoteFile:
    """A file object at a URL that fetches what is read of it, in blocks.

    Raises:
        FileFormatError: there is no such file, or it cannot be read.
        InputError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    system, path = _file_system(url)
    try:
        return RemoteFile(system, path, int(system.size(path)))
    except FileNotFoundError:
        raise FileFormatError(f"there is no file {url}") from None
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(f"cannot read {url}: {said}") from error


class RemoteFile(io.RawIOBase):
    """Reads a file of fsspec; blocks are kept, and missing neighbours come in one request.

    The caches of fsspec fetch every block by itself, or forget what was fetched before.
    """

    def __init__(self, system: Any, path: str, size: int) -> None:
        self._system, self._path, self.size = system, path, size
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
        self._fetch([block for block in wanted if block not in self._blocks])
        found = b"".join(self._blocks[block] for block in wanted)
        first = wanted.start * BLOCK
        buffer[: stop - start] = found[start - first : stop - first]
        for block in wanted:
            self._blocks.move_to_end(block)
        while len(self._blocks) > MAX_BLOCKS:
            self._blocks.popitem(last=False)
        self._at = stop
        return stop - start

    def _fetch(self, blocks: list[int]) -> None:
        for run in _runs(blocks):
            first, last = run.start * BLOCK, min(run.stop * BLOCK, self.size)
            fetched = self._system.cat_file(self._path, start=first, end=last)
            if len(fetched) != last - first:
                raise OSError(f"{self._path} was cut off after {first + len(fetched)} bytes")
            for i, block in enumerate(run):
                self._blocks[block] = fetched[i * BLOCK : (i + 1) * BLOCK]


def _runs(blocks: list[int]) -> list[range]:
    """Consecutive numbers as ranges."""
    runs: list[range] = []
    for block in blocks:
        if runs and runs[-1].stop == block:
            runs[-1] = range(runs[-1].start, block + 1)
        else:
            runs.append(range(block, block + 1))
    return runs


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except ImportError as error:
        said = f"{url} cannot be opened ({error})"
        raise InputError(f"{said}: pip install 'fastconv[remote]'") from None
    except ValueError as error:
        raise InputError(f"{url} cannot be opened: {error}") from error
