"""Arrays as data sets: sliced directly, without a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.data.labels import class_indices, truths
from fastconv.data.samples import Batch, Samples, Unit, check_not_random, check_unit
from fastconv.data.tensors import as_tensor, one_line
from fastconv.errors import DataError


class ArraySamples(Samples):
    """An array sliced directly, without a loader."""

    kind = "array"

    def __init__(self, data: Any, labels: Tensor | None, *, skip: bool):
        self.skip, self.skipped = skip, {}
        if isinstance(data, Tensor) or hasattr(data, "toarray"):
            _as_input(data)  # refuses what cannot be sliced: sparse, nested, without values
        if len(data.shape) < 2:
            raise DataError(f"an array of samples is [N, C, ...], got shape {list(data.shape)}")
        if data.shape[0] == 0:
            raise DataError("the data set is empty")
        self.data = data.detach() if isinstance(data, Tensor) else data
        self._given = labels
        self.labels = None if labels is None else class_indices(labels, len(self))
        self.sample_shape = tuple(int(n) for n in data.shape[1:])
        self.input_dtype = str(data.dtype).removeprefix("torch.")
        first = self.first()
        check_not_random(f"sample {first}", lambda: self._values([first]))

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def require_labels(self) -> None:
        if self.labels is None:
            try:
                self.labels = truths(self._given, len(self))
            except DataError as error:
                raise DataError(f"a label {error}") from error

    def batches(self, units: Iterable[Unit], num_workers: int = 0) -> Iterator[Batch]:
        del num_workers  # slicing needs none
        for unit in units:
            check_unit(unit, len(self))
            x = self._values(unit)
            rows = self.kept(unit)
            label = None if self.labels is None else self.labels[rows]
            # a copy: a model that works in place must not change the data
            yield x.clone(memory_format=self.layout), label

    def _values(self, unit: Unit) -> Tensor:
        rows: slice | list[int] = list(unit)
        if rows == [*range(unit[0], unit[-1] + 1)]:  # no copy of an array, one read of a file
            rows = slice(unit[0], unit[-1] + 1)
        for index in unit:
            self.skipped.pop(index, None)
        try:
            return _as_input(self._read(rows))
        except OSError as error:  # of a file behind the array
            if not self.skip:
                raise DataError(
                    f"samples {unit[0]} ... cannot be read: {one_line(error)}"
                ) from error
        found = [x for i in unit if (x := self._one(i)) is not None]
        return torch.stack(found) if found else torch.zeros(0, *self.sample_shape)

    def _one(self, index: int) -> Tensor | None:
        try:
            return _as_input(self._read([index]))[0]
        except OSError as error:
            self.skipped[index] = f"sample {index} cannot be read: {one_line(error)}"
            return None

    def _read(self, rows: slice | list[int]) -> Any:
        if isinstance(rows, slice) or isinstance(self.data, Tensor | np.ndarray):
            return self.data[rows]
        return np.stack([self.data[i] for i in rows])  # h5py takes only increasing lists

    def keys(self) -> list[str] | None:
        return None


def _as_input(values: Any) -> Tensor:
    own = isinstance(values, Tensor) or hasattr(values, "toarray")
    try:
        return as_tensor(values if own else np.asarray(values))
    except DataError as error:
        raise DataError(f"the data {error}") from error
