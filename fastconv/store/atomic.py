"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from fastconv.errors import FastconvError, OutputError

RESERVE = 2**21
META_BLOCK = (
    2**16
)  # metadata gathers in blocks, so that a viewer needs few reads; one is half empty


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
    def create(self, path: Path, meta_block: int = META_BLOCK) -> Iterator[h5py.File]:
        """A new file, on the disk under a temporary name when the inner block ends."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        file = None
        try:
            if path != self.path:
                path.parent.mkdir(exist_ok=True)
            file = open_new(temporary, meta_block)
            yield file
            close(file, temporary)
        except BaseException as error:
            if file is not None:
                abandon(file, temporary)
            self._remove_empty(path.parent)
            if _from_the_disk(error):
                raise OutputError(explain(error, path)) from error
            raise
        self._written.append((temporary, path))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        named: list[Path] = []
        try:
            if kind is None:
                _refuse_existing(self.path, overwrite=self._overwrite)
                for temporary, path in self._written:
                    temporary.replace(path)
                    named.append(path)
                    sync(path.parent)
        except OSError as error:
            if _from_the_disk(error):
                raise OutputError(explain(error, self.path)) from error
            raise
        finally:
            complete = self.path in named
            for temporary, path in self._written:
                temporary.unlink(missing_ok=True)
                if path in named and not complete:  # of no use without the file that it belongs to
                    path.unlink(missing_ok=True)
                self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Remove a folder of maps without files."""
        if folder != self.path.parent and folder.is_dir():
            with suppress(OSError):
                folder.rmdir()


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_new(path: Path, meta_block: int = META_BLOCK) -> h5py.File:
    """A new file, to be ended with `close` or `abandon`; metadata gather in blocks.

    Its arrays are written at once: by default HDF5 writes many of them as they are closed, where
    h5py ignores that they are lost.
    """
    return h5py.File(path, "x", driver="fastconv", rdcc_nbytes=0, meta_block_size=meta_block)


def _at_once(properties: h5py.h5p.PropFAID) -> None:
    properties.set_fapl_sec2()
    properties.set_sieve_buf_size(0)


h5py.register_driver("fastconv", _at_once)


def close(file: h5py.File, path: Path) -> None:
    """Close a file that is whole, and wait until it is on the disk."""
    reserve(file.id)
    file.flush()
    size = file.id.get_filesize()
    with _on_failure_to_memory(file):
        file.close()
    if path.stat().st_size > size:  # what was reserved and not used
        os.truncate(path, size)
    sync(path)


def abandon(file: h5py.File, path: Path) -> None:
    """Close a file in any state, even on a disk that refuses everything, and remove it.

    HDF5 keeps a file open that it cannot write, and crashes as the process ends.
    """
    with suppress(OSError):
        os.truncate(path, 0)  # gives the room back that HDF5 wants for closing
    if file and not _half_closed:
        _to_memory(file.id.get_vfd_handle())
        with suppress(RuntimeError, OSError, ValueError):
            file.close()
    path.unlink(missing_ok=True)


# After a close that failed, HDF5 crashes in the next one, of whichever file: they stay open until
# the process ends, which it survives.
_half_closed: list[h5py.h5f.FileID] = []


@contextmanager
def _on_failure_to_memory(file: h5py.File) -> Iterator[None]:
    handle = file.id.get_vfd_handle()
    try:
        yield
    except (OSError, RuntimeError):
        _half_closed.append(file.id)
        _to_memory(handle)
        raise


def _to_memory(handle: int) -> None:
    """Let what HDF5 has still to write go to memory, where there is such a thing."""
    if hasattr(os, "memfd_create"):
        spare = os.memfd_create("dropped")
        os.dup2(spare, handle, inheritable=False)
        os.close(spare)


def reserve(file: h5py.h5f.FileID, nbytes: int = 0) -> None:
    """Take room on the disk for what HDF5 writes later on; it does not survive failing then.

    Call it before ordinary writes, of `nbytes` beside some metadata; chunks that are written
    directly fail cleanly by themselves.

    Raises:
        OSError: the disk is full.
    """
    block = file.get_access_plist().get_meta_block_size()  # that HDF5 takes at once
    needed = file.get_filesize() + RESERVE + block + nbytes
    handle = file.get_vfd_handle()
    present = os.fstat(handle).st_size
    if present < needed:
        _lengthen(handle, present, needed + RESERVE)


def _lengthen(handle: int, present: int, size: int) -> None:
    """Make a file of `present` bytes `size` bytes long, which the disk then has room for."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    while present < size:  # a short write is followed by one that says why
        present += os.pwrite(handle, bytes(min(RESERVE, size - present)), present)


_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # by some network file systems


def _from_the_disk(error: BaseException) -> bool:
    """Whether the system refused."""
    return disk_error(error) is not None


def disk_error(error: BaseException) -> OSError | None:
    """The error of the system, also where h5py made another exception of it; None for others."""
    if isinstance(error, FastconvError):
        return None
    said = _ERRNO.search(str(error))
    if said and isinstance(error, (OSError, RuntimeError, ValueError, KeyError)):
        return OSError(int(said[1]), os.strerror(int(said[1])))
    return error if isinstance(error, OSError) else None


_ERRNO = re.compile(r"errno = (\d+)")


def explain(error: BaseException, path: Path) -> str:
    """One line: what the system said as this output was written, and what would do."""
    code = getattr(disk_error(error), "errno", None)
    if code == errno.ENOSPC or code == errno.EDQUOT:
        return f"no room left on the disk of {path}: free some space and run the same call again"
    if code == errno.EROFS:
        return f"cannot write {path}: the file system is read-only; choose another folder"
    if code in (errno.EACCES, errno.EPERM):
        return f"cannot write {path}: permission denied; choose a folder that you may write to"
    if code == errno.ENOENT and not path.parent.exists():
        return f"cannot write {path}: there is no folder {path.parent}; create it first"
    said = os.strerror(code) if code else error
    return f"cannot write {path}: {said}; check the disk and run the same call again"


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; choose another name or allow overwriting it")
