"""Map-style data sets, read through a torch DataLoader."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Subset

from fastconv.data.reader import Failure, Read, Reader
from fastconv.data.samples import (
    Batch,
    Samples,
    Unit,
    check_not_random,
    check_unit,
    one_line,
)
from fastconv.errors import DataError, InputError

_AHEAD = 2  # batches that each worker reads ahead


class DatasetSamples(Samples):
    """A map-style data set, read through a torch DataLoader."""

    def __init__(
        self, dataset: Any, collate: Callable | None, worker_init: Callable | None, *, skip: bool
    ):
        self.skip, self.skipped = skip, {}
        if len(dataset) == 0:
            raise DataError(f"the data set is empty ({type(dataset).__name__})")
        self.dataset, self.worker_init = dataset, worker_init
        self.kind = type(dataset).__name__
        self.reader = Reader(dataset, collate, skip=skip)
        x, label = self.reader.read([self.first()])[:2]
        self.sample_shape = self.reader.shape = tuple(x.shape[1:])
        self.input_dtype = str(x.dtype).removeprefix("torch.")
        self.reader.labelled = label is not None
        check_not_random(self)

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, units: Sequence[Unit], num_workers: int = 0) -> Iterator[Batch]:
        if num_workers < 0:
            raise InputError(f"num_workers must be at least 0, got {num_workers}")
        for unit in units:
            check_unit(unit, len(self))
        loader = DataLoader(
            self.reader,
            batch_size=None,  # an index of the reader is a whole unit
            sampler=units,
            num_workers=num_workers,
            prefetch_factor=_AHEAD if num_workers else None,
            collate_fn=_unchanged,
            worker_init_fn=partial(_start_worker, self.worker_init),
        )
        batches = iter(loader)
        with _deaths_noticed_in_turn(num_workers):
            for number, unit in enumerate(units):
                ahead = units[number : number + max(1, _AHEAD * num_workers)]
                batch = _next(batches, unit[0], ahead[-1][-1])
                for index in unit:
                    self.skipped.pop(index, None)
                self.skipped.update(batch[2])
                yield batch[0], batch[1]

    def keys(self) -> list[str] | None:
        return _keys(self.dataset)


@contextlib.contextmanager
def _deaths_noticed_in_turn(num_workers: int) -> Iterator[None]:
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


def _next(batches: Iterator[Read | Failure], first: int, last: int) -> Read:
    """The next batch, while workers read the samples from `first` to `last`."""
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


def _start_worker(then: Callable | None, worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run ends after a whole unit
    if then is not None:
        then(worker)


def _unchanged(batch: Any) -> Any:
    return batch


def _keys(dataset: Any) -> list[str] | None:
    if isinstance(dataset, Subset):
        inner = _keys(dataset.dataset)
        return None if inner is None else [inner[i] for i in dataset.indices]
    for name in ("keys", "samples", "imgs"):
        found = getattr(dataset, name, None)
        if not isinstance(found, list | tuple) or len(found) != len(dataset):
            continue
        names = [f[0] if isinstance(f, tuple | list) and f else f for f in found]
        if all(isinstance(key, str | Path) for key in names):
            root = getattr(dataset, "root", None)
            return [_inside(key, root) for key in names]
    return None


def _inside(key: str | Path, root: Any) -> str:
    """The key as a path inside its folder, where it is one."""
    path = Path(key)
    if isinstance(root, str | Path) and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return os.fspath(key)
