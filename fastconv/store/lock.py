"""Locks on files, held until a process lets go or ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from fastconv.errors import OutputError
from fastconv.store.atomic import explain

PATIENCE = 20.0  # seconds that a process joining others waits for one that tidies up

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
            raise OutputError(explain(error, folder)) from error
        if lock is not None:
            _held.add(lock)
            return lock


def join(folder: Path, out: str) -> tuple[int, bool]:
    """Hold the folder together with others; also tells whether nobody else held it.

    Raises:
        OutputError: one process holds it alone, or the file system has no locks.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        for how, alone in ((fcntl.LOCK_EX, True), (fcntl.LOCK_SH, False)):
            try:
                lock = _try(folder / "lock", how)
            except BlockingIOError:
                continue
            except OSError as error:
                raise OutputError(
                    f"{explain(error, folder)}: several processes need locks there; give each one "
                    "a shard instead (--shard i/n) and merge the results"
                ) from error
            if lock is not None:
                _held.add(lock)
                return lock, alone
        if time.monotonic() > deadline:
            raise OutputError(f"one process is writing {out} alone; wait for it")
        time.sleep(0.05)


def enter(folder: Path) -> int:
    """Hold a folder together with whoever else is in it, once nobody is removing it.

    Raises:
        OutputError: the disk refuses, or the file system has no locks.
    """
    while True:
        try:
            lock = _try(folder / "users", fcntl.LOCK_SH)
        except BlockingIOError:
            lock = None
        except OSError as error:
            raise OutputError(explain(error, folder)) from error
        if lock is not None:
            _held.add(lock)
            return lock
        time.sleep(0.05)


def share(lock: int) -> None:
    """Let others join, after `join` found nobody."""
    fcntl.flock(lock, fcntl.LOCK_SH)


def claim(path: Path, *, wait: bool = False) -> int | None:
    """Hold a file that other processes may want, too; None where one of them holds it.

    Raises:
        FileNotFoundError: the folder is gone: the work is finished.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(lock)
        return None
    _held.add(lock)
    return lock


def release(lock: int) -> None:
    _held.discard(lock)
    os.close(lock)


def _try(path: Path, how: int = fcntl.LOCK_EX) -> int | None:
    """The lock; None where the process that held it has just removed its file, or the folder."""
    try:
        path.parent.mkdir(exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except (FileExistsError, FileNotFoundError):
        if path.parent.is_file() or not path.parent.parent.is_dir():
            raise
        return None
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except FileNotFoundError:
        pass
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
