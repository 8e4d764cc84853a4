"""Iterable data sets of a stable order: a sample's index is its place in the stream."""

from __future__ import annotations

import copy
import itertools
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from fastconv.capture.batch import tensors_in
from fastconv.data.collator import Collator, Read
from fastconv.data.keys import classes_of
from fastconv.data.loading import next_batch, start_worker, unchanged, worker_deaths_noticed_in_turn
from fastconv.data.random_state import random_state_kept
from fastconv.data.reader import Failure
from fastconv.data.samples import Batch, Samples, Unit, check_not_random, check_unit
from fastconv.data.tensors import Inputs, one_line
from fastconv.errors import DataError, InputError

_COMPARED = 16  # samples, to see whether two passes give the same


class StreamSamples(Samples):
    """A stream, read on or else anew from its start; samples not asked for are passed over.

    Where it does not tell its length, one pass counts its samples, and keeps their names if they
    are dicts with "__key__", as those of WebDataset are. With workers, one process reads ahead:
    several would have to share the stream.
    """

    def __init__(
        self, stream: Any, collate: Callable | None, worker_init: Callable | None, **how: bool
    ):
        self.skip, self.skipped = how["skip"], {}
        self.kind = type(stream).__name__
        if iter(stream) is stream:
            raise DataError(
                f"a {self.kind} can be read only once, but data are read several times; give an "
                "iterable data set, whose iter() starts anew"
            )
        self._stream, self._worker_init = stream, worker_init
        self._cursor = _Cursor(stream)
        self._collator = Collator(collate, **how)
        self._first, (x, label, *_) = self._find_first()
        self.sample_shape, self.input_dtype = self._collator.like(x, label)
        check_not_random("its beginning", self._beginning)

    def __len__(self) -> int:
        return self._count_and_keys[0]

    def first(self) -> int:
        return self._first

    def spread(self, count: int) -> list[int]:
        """The first ones: a stream is not read to its end for a few samples."""
        return list(range(min(count, len(self))))

    def classes(self) -> list[str] | None:
        return classes_of(self._stream)

    def keys(self) -> list[str] | None:
        return self._count_and_keys[1]

    def batches(self, units: Sequence[Unit], num_workers: int = 0) -> Iterator[Batch]:
        if num_workers < 0:
            raise InputError(f"num_workers must be at least 0, got {num_workers}")
        before = -1
        for unit in units:
            check_unit(unit, len(self))
            if unit[0] <= before or list(unit) != sorted(set(unit)):
                raise InputError(f"a stream is read in ascending order, got {unit} after {before}")
            before = unit[-1]
        cursor = _Cursor(self._stream) if num_workers else self._cursor
        loader = DataLoader(
            _Units(cursor, self._collator, units, last=len(self) - 1),
            batch_size=None,  # whole units
            num_workers=min(num_workers, 1),
            collate_fn=unchanged,
            worker_init_fn=partial(start_worker, self._worker_init),
            generator=torch.Generator(),  # its own: the global one is the caller's
        )
        with worker_deaths_noticed_in_turn(num_workers), random_state_kept():
            batches = iter(loader)
        with worker_deaths_noticed_in_turn(num_workers):
            for unit in units:
                with random_state_kept():
                    x, label, failed, columns = next_batch(batches, unit[0], unit[-1])
                for index in unit:
                    self.skipped.pop(index, None)
                self.skipped.update(failed)
                self.column_values = columns
                yield x, label

    def keep_columns(self, names: Sequence[str]) -> None:
        self._collator.columns = tuple(names)
        if names:
            self._find_first()  # they are there

    def require_labels(self) -> None:
        if not self._collator.truths:
            self._collator.require_labels()
            self._collator.like(*self._find_first()[1][:2])

    def _find_first(self) -> tuple[int, Read]:
        index = -1
        with random_state_kept():
            for index, sample in _numbered(self._stream):
                read = self._collator.batch({index: sample}, {})
                if index not in read[2]:
                    return index, read
        if index < 0:
            raise DataError(f"the data set is empty: {self.kind} is an iterable data set of none")
        raise DataError(f"none of the {index + 1} samples can be read: {read[2][index]}")

    def _beginning(self) -> Inputs:
        head = itertools.islice(_numbered(self._stream), _COMPARED)
        found = [self._collator.batch({index: sample}, {})[0] for index, sample in head]
        return tuple(tensor for x in found for tensor in tensors_in(x))

    @cached_property
    def _count_and_keys(self) -> tuple[int, list[str] | None]:
        try:
            return len(self._stream), None
        except TypeError:  # of most streams
            pass
        count, keys = 0, []
        with random_state_kept():
            for place, sample in _numbered(self._stream):
                count = place + 1
                if isinstance(sample, Mapping) and "__key__" in sample:
                    keys.append(str(sample["__key__"]))
        return count, keys if len(keys) == count else None


class _Cursor:
    """A place in the stream: read on from there, or from the start if that is already past."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._next: float = 0
        self._samples = _numbered(stream)

    def __call__(self, index: int) -> Any:
        if index < self._next:
            self._next, self._samples = 0, _numbered(self._stream)
        for place, sample in self._samples:
            self._next = place + 1
            if place == index:
                return sample
        self._next = math.inf  # whoever reads again starts anew
        raise DataError(f"the stream ended before sample {index}: it has changed")

    def check_end(self) -> None:
        """Expect nothing more.

        Raises:
            DataError: the stream goes on.
        """
        after, self._next = self._next, math.inf
        if next(self._samples, None) is not None:
            raise DataError(f"the stream goes on after its {after} samples: it has changed")


class _Units(IterableDataset):
    """Cuts a stream into units, in whichever process."""

    def __init__(self, cursor: _Cursor, collator: Collator, units: Sequence[Unit], last: int):
        self._cursor, self._collator, self._units = cursor, copy.copy(collator), units
        self._last = last

    def __iter__(self) -> Iterator[Read | Failure]:
        try:
            for unit in self._units:
                samples = {index: self._cursor(index) for index in unit}
                if unit[-1] == self._last:
                    self._cursor.check_end()
                yield self._collator.batch(samples, {})
        except DataError as error:
            if get_worker_info() is None:
                raise
            yield Failure(str(error), traceback.format_exc())


def _numbered(stream: Any) -> Iterator[tuple[int, Any]]:
    """The samples and their places; an error of the stream says where it came."""
    place = -1
    try:
        for place, sample in enumerate(stream):
            yield place, sample
    except DataError:
        raise
    except Exception as error:
        where = "at its beginning" if place < 0 else f"after sample {place}"
        raise DataError(f"the stream breaks {where}: {one_line(error)}") from error
