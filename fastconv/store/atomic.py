"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from fastconv.errors import OutputError

META_BLOCK = 2**21  # metadata gathers in blocks, so that a viewer needs few reads


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[h5py.File]:
    """An HDF5 file that gets its name on leaving the block, and vanishes on any error.

    Raises:
        OutputError: it exists and `overwrite` is false, or the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        _refuse_existing(path, overwrite=overwrite)
        try:
            with h5py.File(temporary, "x", meta_block_size=META_BLOCK) as file:
                yield file
            sync(temporary)
            _refuse_existing(path, overwrite=overwrite)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(explain(error, path)) from error


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
