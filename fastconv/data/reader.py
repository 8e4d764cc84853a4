"""Reads one unit of samples from a map-style data set, in whichever process."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from torch.utils.data import Dataset, get_worker_info

from fastconv.data.collator import Collator, Read
from fastconv.data.keys import keys_of
from fastconv.data.samples import Unit
from fastconv.data.tensors import one_line
from fastconv.errors import DataError


class Failure(NamedTuple):
    """An error on its way out of a worker process, as text: not every exception can travel."""

    message: str
    trace: str


class Reader(Collator, Dataset):
    """Reads one unit of samples: its index is a whole unit."""

    def __init__(self, dataset: Any, collate: Callable | None, **how: bool):
        super().__init__(collate, **how)
        self.dataset = dataset

    def __getitem__(self, unit: Unit) -> Read | Failure:
        if get_worker_info() is None:
            return self.read(unit)
        try:
            return self.read(unit)
        except DataError as error:
            return Failure(str(error), traceback.format_exc())

    def read(self, unit: Unit) -> Read:
        """The batch of those samples that can be read, and why others cannot."""
        samples: dict[int, Any] = {}
        failed: dict[int, str] = {}
        for index in unit:
            try:
                samples[index] = self._sample(index)
            except DataError as error:
                self.note(error, index, failed)
        return self.batch(samples, failed)

    def _sample(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            why = str(error) if isinstance(error, DataError) else one_line(error)
            if self._keys is not None and self._keys[index] not in why:
                why += f" ({self._keys[index]})"
            raise DataError(f"sample {index} cannot be read: {why}") from error

    @cached_property
    def _keys(self) -> list[str] | None:
        return keys_of(self.dataset)
