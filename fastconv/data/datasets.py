"""Map-style data sets, read through a torch DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from fastconv.data.keys import classes_of, keys_of
from fastconv.data.loading import next_batch, start_worker, unchanged, worker_deaths_noticed_in_turn
from fastconv.data.media import MediaDataset
from fastconv.data.random_state import random_state_kept
from fastconv.data.reader import Reader
from fastconv.data.samples import (
    Batch,
    Samples,
    Unit,
    check_not_random,
    check_unit,
)
from fastconv.errors import DataError, InputError

_AHEAD = 2  # batches that each worker reads ahead


class DatasetSamples(Samples):
    """A map-style data set, read through a torch DataLoader."""

    def __init__(
        self, dataset: Any, collate: Callable | None, worker_init: Callable | None, **how: bool
    ):
        self.skip, self.skipped = how["skip"], {}
        self.dataset, self.worker_init = dataset, worker_init
        self.kind = type(dataset).__name__
        self.reader = Reader(dataset, collate, **how)
        with random_state_kept():
            if len(dataset) == 0:
                raise DataError(f"the data set is empty ({self.kind})")
            first = self.first()
        self._expect_like(first)
        check_not_random(f"sample {first}", lambda: self.reader.read([first])[0])

    def _expect_like(self, first: int) -> None:
        with random_state_kept():
            x, label = self.reader.read([first])[:2]
        self.sample_shape, self.input_dtype = self.reader.like(x, label)

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, units: Iterable[Unit], num_workers: int = 0) -> Iterator[Batch]:
        if num_workers < 0:
            raise InputError(f"num_workers must be at least 0, got {num_workers}")
        units = list(units)
        for unit in units:
            check_unit(unit, len(self))
        loader = DataLoader(
            self.reader,
            batch_size=None,  # an index of the reader is a whole unit
            sampler=units,
            num_workers=num_workers,
            prefetch_factor=_AHEAD if num_workers else None,
            collate_fn=unchanged,
            worker_init_fn=partial(start_worker, self.worker_init),
            generator=torch.Generator(),  # its own: the global one is the caller's
        )
        batches = iter(loader)
        with worker_deaths_noticed_in_turn(num_workers):
            for number, unit in enumerate(units):
                ahead = units[number : number + max(1, _AHEAD * num_workers)]
                with random_state_kept():
                    batch = next_batch(batches, unit[0], ahead[-1][-1])
                for index in unit:
                    self.skipped.pop(index, None)
                self.skipped.update(batch[2])
                self.column_values = batch[3]
                yield batch[0], batch[1]

    def keep_columns(self, names: Sequence[str]) -> None:
        self.reader.columns = tuple(names)
        if names:
            self.first()  # they are there

    def require_labels(self) -> None:
        if not self.reader.truths:
            self.reader.require_labels()
            self._expect_like(self.first())

    def classes(self) -> list[str] | None:
        return classes_of(self.dataset)

    def keys(self) -> list[str] | None:
        return keys_of(self.dataset)

    def fingerprint(self) -> dict[str, Any]:
        found = super().fingerprint()
        if isinstance(self.dataset, MediaDataset) and (done := self.dataset.preparation()):
            found["preparation"] = done
        return found
