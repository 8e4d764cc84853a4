"""Map-style data sets, read through a torch DataLoader."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from fastconv.capture.batch import first_tensor
from fastconv.data.keys import keys_of
from fastconv.data.media_folder import MediaFolder
from fastconv.data.random_state import random_state_kept
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
        self.dataset, self.worker_init = dataset, worker_init
        self.kind = type(dataset).__name__
        self.reader = Reader(dataset, collate, skip=skip)
        with random_state_kept():
            if len(dataset) == 0:
                raise DataError(f"the data set is empty ({self.kind})")
            first = self.first()
            x, label = self.reader.read([first])[:2]
        picture = first_tensor(x)
        self.sample_shape = self.reader.shape = tuple(picture.shape[1:])
        self.input_dtype = str(picture.dtype).removeprefix("torch.")
        self.reader.labelled = label is not None
        check_not_random(first, lambda i: self.reader.read([i])[0])

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
            generator=torch.Generator(),  # its own: the global one is the caller's
        )
        batches = iter(loader)
        with _deaths_noticed_in_turn(num_workers):
            for number, unit in enumerate(units):
                ahead = units[number : number + max(1, _AHEAD * num_workers)]
                with random_state_kept():
                    batch = _next(batches, unit[0], ahead[-1][-1])
                for index in unit:
                    self.skipped.pop(index, None)
                self.skipped.update(batch[2])
                yield batch[0], batch[1]

    def keys(self) -> list[str] | None:
        return keys_of(self.dataset)

    def fingerprint(self) -> dict[str, Any]:
        found = super().fingerprint()
        if isinstance(self.dataset, MediaFolder) and (done := self.dataset.preparation()):
            found["preparation"] = done
        return found


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
