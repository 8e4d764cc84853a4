"""Files put to URLs of fsspec, and the folder where one grows until it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from fastconv.errors import InputError, OutputError
from fastconv.store import lock
from fastconv.store.remote import file_system, first_line, is_url, local_path
from fastconv.store.schema import maps_folder


def destination(out: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The path where an output grows, and the URL where it is put at the end, or None.

    For a URL that is a folder of `$FASTCONV_SCRATCH`, by default of `~/.cache/fastconv`, the same
    one in every call, so that an interrupted run goes on there.

    Raises:
        InputError: the URL is of no known kind, or names no file.
        OutputError: there is no such folder or bucket.
    """
    url = os.fspath(out)
    local = local_path(url) if is_url(url) else url
    if local is not None:
        path = Path(local)
        if not path.parent.is_dir():
            raise OutputError(f"there is no folder {path.parent}; make it first")
        return path, None
    name = url.rpartition("/")[2]
    if not name:
        raise InputError(f"{url} is a folder; give the name of a file")
    _require_bucket(url)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    scratch = Path(os.environ.get("FASTCONV_SCRATCH") or Path(cache) / "fastconv")
    return scratch / hashlib.sha256(url.encode()).hexdigest()[:16] / name, url


def scratch_is_named() -> bool:
    """Whether the user says where outputs for URLs grow."""
    return bool(os.environ.get("FASTCONV_SCRATCH"))


def _require_bucket(url: str) -> None:
    """Refuse an object store's bucket that does not exist, before there is work to lose."""
    system, path = file_system(url)
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if protocols.isdisjoint(("s3", "gs", "gcs")):
        return
    bucket = path.split("/")[0]
    try:
        system.info(bucket)
    except FileNotFoundError as error:
        raise OutputError(f"cannot write {url}: there is no bucket {bucket}") from error
    except Exception:  # noqa: BLE001 - who may write need not be allowed to look
        return


def exists(url: str) -> bool:
    """Whether there is a file at a URL.

    Raises:
        OutputError: the file system does not answer.
    """
    system, path = file_system(url)
    try:
        return bool(system.exists(path))
    except Exception as error:
        raise OutputError(f"cannot reach {url}: {first_line(error)}") from error


def put(path: Path, url: str, *, overwrite: bool) -> None:
    """Put a finished file, after its files of maps, to a URL.

    Raises:
        OutputError: there is a file already, or it could not be put; the finished one is kept.
    """
    system, target = file_system(url)
    if exists(url) and not overwrite:
        raise OutputError(f"{url} exists already; choose another name or allow overwriting it")
    maps = {
        file: f"{target.removesuffix('.h5')}.maps/{file.name}"
        for file in sorted(maps_folder(path).glob("*.h5"))
    }
    try:
        for file, place in {**maps, path: target}.items():
            system.put_file(str(file), place)
            system.invalidate_cache()
            if system.size(place) != file.stat().st_size:
                raise OSError(f"{place} was cut off")
    except Exception as error:
        raise OutputError(
            f"cannot write {url}: {first_line(error)}; the finished file is kept: run the same "
            "call again"
        ) from error


def put_bytes(content: bytes, url: str) -> None:
    """Write a small file to a URL; one that is there is replaced.

    Raises:
        OutputError: it could not be written.
    """
    system, target = file_system(url)
    try:
        system.pipe_file(target, content)
    except Exception as error:
        raise OutputError(f"cannot write {url}: {first_line(error)}") from error


class Scratch:
    """The folder of one output, which the processes that work on it share until the last leaves.

    It stays where work is left in it.

    Raises:
        OutputError: it cannot be made.
    """

    def __init__(self, out: Path) -> None:
        """Take the path where the output grows, as `destination` gave it."""
        self._out = out

    def __enter__(self) -> Scratch:
        folder = self._out.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(
                f"runs for URLs grow in {folder.parent}, which cannot be made "
                f"({error.strerror}): set FASTCONV_SCRATCH to another folder"
            ) from error
        self._lock = lock.enter(folder)
        return self

    def __exit__(self, *error: object) -> None:
        if {path.name for path in self._out.parent.glob("*")} <= {"users", "put.lock"}:
            self.remove()
        lock.release(self._lock)

    def put(self, url: str, *, overwrite: bool) -> None:
        """Put the finished file to the URL, once; the last process removes the folder.

        Raises:
            OutputError: there is a file already, or it could not be put; the finished one is kept.
        """
        folder, note = self._out.parent, self._out.parent / "put"
        held = lock.claim(folder / "put.lock", wait=True)
        assert held is not None  # waited for
        try:
            state = self._out.stat()
            file = f"{state.st_ino} {state.st_size} {state.st_mtime_ns}"
            if not note.exists() or note.read_text() != file:
                put(self._out, url, overwrite=overwrite)
                note.write_text(file)
            self.remove()
        finally:
            lock.release(held)

    def remove(self) -> None:
        """Remove the folder with what is left there, unless another process is at work in it.

        A lock that cannot be made exclusive is lost, so that the last process to try removes it.
        """
        folder = self._out.parent
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(self._lock), (folder / "users").stat()):
                shutil.rmtree(folder, ignore_errors=True)  # the file stands at the URL
