"""Iterable data sets of a stable order: a sample's index is its place in the stream."""

from __future__ import annotations

import copy
import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from fastconv.capture.batch import first_tensor
from fastconv.data.loading import next_batch, start_worker, unchanged, worker_deaths_noticed_in_turn
from fastconv.data.random_state import random_state_kept
from fastconv.data.reader import Collator, Failure, Read
from fastconv.data.samples import Batch, Samples, Unit, check_not_random, check_unit, one_line
from fastconv.errors import DataError, InputError

_COMPARED = 16  # samples, to see whether two passes give the same


class StreamSamples(Samples):
    """A stream, read from its start in every pass; samples not asked for are passed over.

    Where it does not tell its length, one pass counts its samples, and keeps their names if they
    are dicts with "__key__", as those of WebDataset are. With workers, one process reads ahead:
    several would have to share the stream.
    """

    def __init__(
        self, stream: Any, collate: Callable | None, worker_init: Callable | None, *, skip: bool
    ):
        self.skip, self.skipped = skip, {}
        self.kind = type(stream).__name__
        if iter(stream) is stream:
            raise DataError(
                f"a {self.kind} can be read only once, but data are read several times; give an "
                "iterable data set, whose iter() starts anew"
            )
        self._stream, self._worker_init = stream, worker_init
        self._collator = Collator(collate, skip=skip)
        self._first, (x, label, *_) = self._find_first()
        picture = first_tensor(x)
        self.sample_shape = self._collator.shape = tuple(picture.shape[1:])
        self.input_dtype = str(picture.dtype).removeprefix("torch.")
        self._collator.labelled = label is not None
        check_not_random("its beginning", self._beginning)

    def __len__(self) -> int:
        return self._count_and_keys[0]

    def first(self) -> int:
        return self._first

    def spread(self, count: int) -> list[int]:
        """The first ones: a stream is not read to its end for a few samples."""
        return list(range(min(count, len(self))))

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
        loader = DataLoader(
            _Units(self._stream, self._collator, units),
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
                    x, label, failed, _ = next_batch(batches, unit[0], unit[-1])
                for index in unit:
                    self.skipped.pop(index, None)
                self.skipped.update(failed)
                yield x, label

    def _find_first(self) -> tuple[int, Read]:
        index = -1
        with random_state_kept():
            for index, sample in _numbered(self._stream):
                read = self._collator.batch({index: sample}, {})
                if len(first_tensor(read[0])):
                    return index, read
        if index < 0:
            raise DataError(f"the data set is empty: {self.kind} is an iterable data set of none")
        raise DataError(f"none of the {index + 1} samples can be read: {read[2][index]}")

    def _beginning(self) -> Tensor:
        head = itertools.islice(_numbered(self._stream), _COMPARED)
        found = [self._collator.batch({index: sample}, {})[0] for index, sample in head]
        return torch.cat(found) if found else torch.zeros(0)

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


class _Units(IterableDataset):
    """Cuts a stream into units, in whichever process."""

    def __init__(self, stream: Any, collator: Collator, units: Sequence[Unit]):
        self._stream, self._collator, self._units = stream, copy.copy(collator), units

    def __iter__(self) -> Iterator[Read | Failure]:
        try:
            yield from self._batches()
        except DataError as error:
            if get_worker_info() is None:
                raise
            yield Failure(str(error), traceback.format_exc())

    def _batches(self) -> Iterator[Read]:
        samples = _numbered(self._stream)
        for unit in self._units:
            found = {}
            for index in unit:
                for place, sample in samples:
                    if place == index:
                        found[index] = sample
                        break
                else:
                    raise DataError(f"the stream ended before sample {index}: it has changed")
            yield self._collator.batch(found, {})


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
