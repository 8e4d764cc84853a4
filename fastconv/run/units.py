"""How a data set is cut into batches, the units of work, while its end may be unknown."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from torch import Tensor

from fastconv.data.samples import Samples
from fastconv.errors import DataError
from fastconv.run.options import Options
from fastconv.store.parts import PartsFolder


class Units:
    """The batches of a data set, numbered; a batch never depends on who reads it."""

    def __init__(self, source: Samples, options: Options):
        self.source, self._size, self._shard = source, options.batch_size, options.shard

    @property
    def total(self) -> int | None:
        """How many there are; None for a stream whose end has not been seen."""
        length = self.source.length
        return None if length is None else -(-length // self._size)

    @property
    def own(self) -> range | None:
        """Those of this shard: consecutive, and as even as can be; None where `total` is."""
        (index, count), total = self._shard, self.total
        if total is None:
            return None
        return range(total * index // count, total * (index + 1) // count)

    def samples(self, numbers: range) -> range:
        """The samples of consecutive units."""
        stop, length = numbers.stop * self._size, self.source.length
        return range(numbers.start * self._size, stop if length is None else min(stop, length))

    def __getitem__(self, number: int) -> range:
        return self.samples(range(number, number + 1))

    def learn_end(self, folder: PartsFolder) -> None:
        """Take the length of a stream from the process that has seen its end."""
        if self.source.length is None and (end := folder.end()) is not None:
            self.source.expect(end)

    def samples_done(self, folder: PartsFolder) -> int:
        """The number of samples that are in parts."""
        done, length = len(folder.done()) * self._size, self.source.length
        return done if length is None else min(done, length)

    def read(
        self, numbers: Iterable[int], folder: PartsFolder, num_workers: int
    ) -> Iterator[tuple[int, range, Any, Tensor | None]]:
        """Yield number, samples, inputs and labels of these units, as far as the data go.

        The end of a stream is noted in the folder once it is seen.

        Args:
            numbers: ascending; it is iterated several times.
        """
        told = self.source.length is not None
        batches = self.source.batches(_Ranges(self, numbers), num_workers)
        for number, (inputs, labels) in zip(numbers, batches, strict=told):
            if not told:
                self._note_end(folder)
            yield number, self[number], inputs, labels
        if not told:
            self._note_end(folder)

    def _note_end(self, folder: PartsFolder) -> None:
        if self.total is None or self.source.length is None:
            return
        if any(unit >= self.total for unit in folder.done()):
            raise DataError(
                f"the stream has changed: it ended after {self.source.length} samples, but "
                f"{folder.path} holds later ones; start anew (resume=False, --no-resume)"
            )
        folder.write_end(self.source.length)


class Undone:
    """Numbers of all units but those done, without end; each iteration starts anew."""

    def __init__(self, done: Collection[int]):
        self._done = frozenset(done)

    def __iter__(self) -> Iterator[int]:
        return itertools.filterfalse(self._done.__contains__, itertools.count())


class _Ranges:
    """The samples of units, in the order of their numbers; can travel to a worker process."""

    def __init__(self, units: Units, numbers: Iterable[int]):
        self._units, self._numbers = units, numbers

    def __iter__(self) -> Iterator[range]:
        return map(self._units.__getitem__, self._numbers)
