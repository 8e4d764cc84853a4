"""A folder that one process holds at a time, until it lets go or ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fastconv.errors import OutputError
from fastconv.store.atomic import explain

_held: set[int] = set()


def take(folder: Path, out: str) -> int:
    """Hold the folder, which is made where it is missing; to be ended with `release`.

    Raises:
        OutputError: another process, at work on `out`, holds it, or the disk refuses.
    """
    while True:
        try:
            lock = _try(folder / "lock")
        except BlockingIOError as error:
            raise OutputError(
                f"another process is writing {out}; wait for it, choose another output, "
                "or give each process a shard and merge the results"
            ) from error
        except OSError as error:
            if isinstance(error, FileNotFoundError) and folder.parent.is_dir():
                continue  # its holder has just removed the folder
            raise OutputError(explain(error, folder)) from error
        if lock is not None:
            _held.add(lock)
            return lock


def release(lock: int) -> None:
    _held.discard(lock)
    os.close(lock)


def _try(path: Path) -> int | None:
    """The lock; None where the process that held it has just removed its file."""
    path.parent.mkdir(exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _let_go() -> None:
    """In a child, such as a loader's worker: the lock lasts as long as any process has it open."""
    for lock in _held:
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
