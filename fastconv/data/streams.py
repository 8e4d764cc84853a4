"""Iterable data sets of a stable order: a sample's index is its place in the stream."""

from __future__ import annotations

import copy
import itertools
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

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

    Its length, where it does not tell that, is known once a pass has come to its end. The names
    of samples are kept as they are read, of dicts with "__key__", as those of WebDataset are. With
    workers, one process reads ahead: several would have to share the stream.
    """

    by_index = False

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
        self._length = _told_length(stream)
        self._cursor = _Cursor(stream)
        self._collator = Collator(collate, **how)
        self._first, (x, label, *_) = self._find_first()
        self.sample_shape, self.input_dtype = self._collator.like(x, label)
        check_not_random("its beginning", self._beginning)

    def __len__(self) -> int:
        """The number of samples; counted in a pass of its own where it is not known."""
        if self._length is None:
            with random_state_kept():
                self._length = sum(1 for _ in _numbered(self._stream))
        return self._length

    @property
    def length(self) -> int | None:
        return self._length

    def expect(self, length: int) -> None:
        self._length = length

    def first(self) -> int:
        return self._first

    def spread(self, count: int) -> list[int]:
        """The first ones: a stream is not read to its end for a few samples."""
        return list(range(min(count, self._beginning_length)))

    def classes(self) -> list[str] | None:
        return classes_of(self._stream)

    def keys(self) -> list[str] | None:
        return None  # but `unit_keys`, as they come

    def batches(self, units: Iterable[Unit], num_workers: int = 0) -> Iterator[Batch]:
        """Yield one batch per unit, as far as the stream goes.

        Where its length is not known, units that are no list may go beyond its end: the last batch
        then holds what there is, and the length is known once the batches have ended.

        Raises:
            DataError: also, a stream that has not the length that is known.
            InputError: a list of units beyond the end.
        """
        if num_workers < 0:
            raise InputError(f"num_workers must be at least 0, got {num_workers}")
        cursor = _Cursor(self._stream) if num_workers else self._cursor
        loader = DataLoader(
            _Units(cursor, self._collator, units, self._length, keyed=self._keyed),
            batch_size=None,  # whole units
            num_workers=min(num_workers, 1),
            collate_fn=unchanged,
            worker_init_fn=partial(start_worker, self._worker_init),
            generator=torch.Generator(),  # its own: the global one is the caller's
        )
        with worker_deaths_noticed_in_turn(num_workers), random_state_kept():
            batches = iter(loader)
        with worker_deaths_noticed_in_turn(num_workers):
            for unit in _checked(units, self._length):
                with random_state_kept():
                    piece = next_batch(batches, unit[0], unit[-1])
                if piece.end is not None:
                    self._length = piece.end
                    if isinstance(units, Sequence):
                        check_unit(unit, piece.end)
                if piece.read is None:
                    return
                x, label, failed, columns = piece.read
                for index in unit:
                    self.skipped.pop(index, None)
                self.skipped.update(failed)
                self.column_values, self.unit_keys = columns, piece.keys
                yield x, label
                if piece.end is not None:
                    return

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
        head = list(itertools.islice(_numbered(self._stream), _COMPARED))
        found = [self._collator.batch({index: sample}, {})[0] for index, sample in head]
        self._beginning_length = len(head)
        self._keyed = any(_key_of(sample) is not None for _, sample in head)
        return tuple(tensor for x in found for tensor in tensors_in(x))


def _told_length(stream: Any) -> int | None:
    try:
        return len(stream)
    except TypeError:  # of most streams
        return None


def _checked(units: Iterable[Unit], length: int | None) -> Iterator[Unit]:
    before = -1
    for unit in units:
        check_unit(unit, length)
        if unit[0] <= before or list(unit) != sorted(set(unit)):
            raise InputError(f"a stream is read in ascending order, got {unit} after {before}")
        before = unit[-1]
        yield unit


class _EndedError(DataError):
    """The stream ended before a sample that was asked for."""

    def __init__(self, length: int, index: int):
        super().__init__(f"the stream ended before sample {index}: it has changed")
        self.length = length


class _Cursor:
    """A place in the stream: read on from there, or from the start if that is already past."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._next: float = math.inf  # not begun
        self._skipped = 0  # samples that the stream itself has passed over

    def __call__(self, index: int) -> Any:
        if index < self._next:
            self._skipped = index if _skips(self._stream) else 0
            self._next, self._samples = self._skipped, _numbered(self._stream, self._skipped)
        for place, sample in self._samples:
            self._next = place + 1
            if place == index:
                return sample
        length, self._next = int(self._next), math.inf  # whoever reads again starts anew
        if length == self._skipped:  # of samples that may not be there
            length = sum(1 for _ in _numbered(self._stream))
        raise _EndedError(length, index)

    def check_end(self) -> None:
        """Expect nothing more.

        Raises:
            DataError: the stream goes on.
        """
        after, self._next = self._next, math.inf
        if next(self._samples, None) is not None:
            raise DataError(f"the stream goes on after its {after} samples: it has changed")


class _Piece(NamedTuple):
    """The batch of a unit, with the names of its samples; and where the stream has ended."""

    read: Read | None
    keys: list[str] | None
    end: int | None


class _Units(IterableDataset):
    """Cuts a stream into units, in whichever process."""

    def __init__(
        self,
        cursor: _Cursor,
        collator: Collator,
        units: Iterable[Unit],
        length: int | None,
        *,
        keyed: bool,
    ):
        self._cursor, self._collator, self._units = cursor, copy.copy(collator), units
        self._length, self._keyed = length, keyed

    def __iter__(self) -> Iterator[_Piece | Failure]:
        try:
            for unit in self._units:
                piece = self._piece(unit)
                yield piece
                if piece.end is not None:
                    return
        except DataError as error:
            if get_worker_info() is None:
                raise
            yield Failure(str(error), traceback.format_exc())

    def _piece(self, unit: Unit) -> _Piece:
        samples: dict[int, Any] = {}
        end = None
        try:
            for index in unit:
                samples[index] = self._cursor(index)
        except _EndedError as ended:
            if self._length is not None:
                raise
            end = ended.length
        if self._length is not None and unit[-1] == self._length - 1:
            self._cursor.check_end()
        if not samples:
            return _Piece(None, None, end)
        keys = [_key_of(sample) or "" for sample in samples.values()] if self._keyed else None
        return _Piece(self._collator.batch(samples, {}), keys, end)


def _key_of(sample: Any) -> str | None:
    key = sample.get("__key__") if isinstance(sample, Mapping) else None
    return None if key is None else str(key)


def _skips(stream: Any) -> bool:
    """Whether it passes over samples without making them, as those of Hugging Face do."""
    return type(stream).__module__.startswith("datasets.") and hasattr(stream, "skip")


def _numbered(stream: Any, start: int = 0) -> Iterator[tuple[int, Any]]:
    """The samples and their places; an error of the stream says where it came."""
    place = -1
    try:
        for place, sample in enumerate(stream.skip(start) if start else stream, start):
            yield place, sample
    except DataError:
        raise
    except Exception as error:
        where = "at its beginning" if place < 0 else f"after sample {place}"
        raise DataError(f"the stream breaks {where}: {one_line(error)}") from error
