"""Batches from the loader of torch: its worker processes, and how they end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fastconv.data.reader import Failure
from fastconv.data.tensors import one_line
from fastconv.errors import DataError


@contextlib.contextmanager
def worker_deaths_noticed_in_turn(num_workers: int) -> Iterator[None]:
    """Let a worker's death be noticed where its batch is waited for, within five seconds.

    torch's handler of SIGCHLD raises in the middle of whatever runs, such as a write to the file.
    """
    if num_workers == 0 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def next_batch(batches: Iterator[Any], first: int, last: int) -> Any:
    """The next batch, while workers read the samples from `first` to `last`.

    Raises:
        DataError: a worker died, or hands over a `Failure`.
    """
    try:
        batch = next(batches)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a worker process died as it read some of the samples {first} ... {last} "
            f"({one_line(error)}); fewer workers or a smaller batch need less memory, and without "
            "workers a sample that ends its reader is found"
        ) from error
    if isinstance(batch, Failure):
        raise DataError(batch.message) from RuntimeError(batch.trace)
    return batch


def start_worker(then: Callable | None, worker: int) -> None:
    """Leave Ctrl-C to the main process, which ends after a whole unit; then as the user wishes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if then is not None:
        then(worker)


def unchanged(batch: Any) -> Any:
    """Collate nothing: what is read is a whole batch."""
    return batch
