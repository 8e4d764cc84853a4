"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from fastconv.errors import OutputError

META_BLOCK = 2**21  # metadata gathers in blocks, so that a viewer needs few reads


class NewFiles:
    """HDF5 files that all get their names on leaving the block, or vanish on any error.

    The names appear in the order in which the files were closed.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or the disk refuses.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path, self._overwrite = path, overwrite
        self._written: list[tuple[Path, Path]] = []  # temporary and final name

    def __enter__(self) -> NewFiles:
        _refuse_existing(self.path, overwrite=self._overwrite)
        return self

    @contextmanager
    def create(self, path: Path) -> Iterator[h5py.File]:
        """A new file, on the disk under a temporary name when the inner block ends."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            if path != self.path:
                path.parent.mkdir(exist_ok=True)
            with h5py.File(temporary, "x", meta_block_size=META_BLOCK) as file:
                yield file
            sync(temporary)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, OutputError):
                raise OutputError(explain(error, path)) from error
            raise
        self._written.append((temporary, path))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                _refuse_existing(self.path, overwrite=self._overwrite)
                for temporary, path in self._written:
                    temporary.replace(path)
                    sync(path.parent)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(explain(error, self.path)) from error
        finally:
            for temporary, path in self._written:
                temporary.unlink(missing_ok=True)
                if path.parent != self.path.parent and path.parent.is_dir():
                    with suppress(OSError):  # goes only when it is empty
                        path.parent.rmdir()


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explain(error: OSError, path: Path) -> str:
    """One line: what the system said of this output, and what would do."""
    code = error.errno
    if code == errno.ENOSPC or code == errno.EDQUOT:
        return f"no room left on the disk of {path}: free some space and run again"
    if code == errno.EROFS:
        return f"cannot write {path}: the file system is read-only; choose another folder"
    if code in (errno.EACCES, errno.EPERM):
        return f"cannot write {path}: permission denied; choose a folder that you may write to"
    if code == errno.ENOENT and not path.parent.exists():
        return f"cannot write {path}: there is no folder {path.parent}; create it first"
    return f"cannot write {path}: {error}"


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; choose another name or allow overwriting it")
