"""Reads one unit of samples from a map-style data set, in whichever process."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from fastconv.capture.batch import first_tensor
from fastconv.data.keys import keys_of
from fastconv.data.parts import column_of, input_and_label, integer, no_array
from fastconv.data.samples import Batch, Unit, as_tensor, batch_labels, one_line
from fastconv.errors import DataError

Columns = dict[str, list[Any]]
# a batch, why samples are missing in it, and its columns
Read = tuple[Any, Tensor | None, dict[int, str], Columns]


class Failure(NamedTuple):
    """An error on its way out of a worker process, as text: not every exception can travel."""

    message: str
    trace: str


class Collator:
    """Makes the batch of some samples, with errors that name the index.

    Attributes:
        shape, labelled: of the first sample, once it has been read; the others must be alike.
        columns: names of what else is kept of every sample.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, collate: Callable | None, *, skip: bool, one_size: bool = True):
        self.collate, self.skip, self.one_size = collate, skip, one_size
        self.shape: tuple[int, ...] | None = None
        self.labelled: bool | None = None

    def batch(self, samples: dict[int, Any], failed: dict[int, str]) -> Read:
        """The batch of samples by index; `failed` says why others are missing, and is added to."""
        kept: dict[int, Any] = {}
        values: dict[int, list[Any]] = {}
        for index, sample in samples.items():
            try:
                if sample is None:
                    raise DataError(f"sample {index} is None: the data set could not read it")
                values[index] = self._columns(sample, index)
                kept[index] = sample if self.collate else self._split(sample, index)
            except DataError as error:
                self._note(error, index, failed)
        if self.collate and kept:
            kept, batch = self._collated(kept, failed)
        columns = {name: [values[i][c] for i in kept] for c, name in enumerate(self.columns)}
        if not kept:
            labels = torch.zeros(0, dtype=torch.int64) if self.labelled else None
            return (
                torch.zeros(0, *(self.shape or ())),
                labels,
                failed,
                {n: [] for n in self.columns},
            )
        columns = {name: [values[i][c] for i in kept] for c, name in enumerate(self.columns)}
        if self.collate:
            return *batch, failed, columns
        found = [label for _, label in kept.values()]
        unlabelled = None in found or self.labelled is False
        inputs = [x for x, _ in kept.values()]
        alone = isinstance(inputs[0], Tensor)
        x = torch.stack(inputs) if alone else self._together(inputs, list(kept))
        return x, None if unlabelled else torch.tensor(found), failed, columns

    def _columns(self, sample: Any, index: int) -> list[Any]:
        found = []
        for name in self.columns:
            try:
                found.append(column_of(sample, name))
            except DataError as error:
                raise DataError(f"column {name!r} of sample {index} {error}") from error
        return found

    def _note(self, error: DataError, index: int, failed: dict[int, str]) -> None:
        if not self.skip:
            raise error
        failed[index] = str(error)

    @staticmethod
    def _together(inputs: list[Any], samples: list[int]) -> Any:
        """The batch of samples with several inputs each."""
        try:
            return default_collate(inputs)
        except (RuntimeError, TypeError, KeyError) as error:
            raise DataError(
                f"the inputs of samples {samples[0]} ... {samples[-1]} are not alike: "
                f"{one_line(error)}"
            ) from error

    def _split(self, sample: Any, index: int) -> tuple[Any, int | None]:
        try:
            value, label = input_and_label(sample)
            x = _inputs(value)
        except DataError as error:
            raise DataError(f"the input of sample {index} {error}") from error
        self._check_shape(tuple(first_tensor(x).shape), index)
        label = integer(label)
        if self.labelled and label is None:
            raise DataError(f"sample {index} has no integer label, but sample 0 has one")
        return x, label

    def _check_shape(self, shape: tuple[int, ...], index: int) -> None:
        first = shape if self.shape is None else self.shape
        if shape == first:
            return
        same_kind = len(shape) == len(first) and shape[:1] == first[:1]
        if same_kind and not self.one_size:
            return
        remedy = "all must have as many channels and dimensions"
        if same_kind:
            remedy = "all must be equal: resize or crop them"
        raise DataError(
            f"sample {index} has shape {list(shape)}, sample 0 has {list(first)}; {remedy}"
        )

    def _collated(
        self, samples: dict[int, Any], failed: dict[int, str]
    ) -> tuple[dict[int, Any], Batch]:
        """The batch that `collate_fn` makes, and the samples in it.

        Those that it drops, or fails on, are found one by one if they may be skipped.
        """
        none: Batch = (torch.zeros(0), None)
        try:
            return samples, self._collate(samples)
        except DataError:
            if not self.skip:
                raise
        kept = {}
        for index, sample in samples.items():
            try:
                self._collate({index: sample})
                kept[index] = sample
            except DataError as error:
                failed[index] = str(error)
        return kept, self._collate(kept) if kept else none

    def _collate(self, samples: dict[int, Any]) -> Batch:
        unit = list(samples)
        where = f"samples {unit[0]} ... {unit[-1]}" if len(unit) > 1 else f"sample {unit[0]}"
        try:
            value, label = input_and_label(self.collate(list(samples.values())))  # type: ignore[misc]
        except Exception as error:
            raise DataError(f"collate_fn fails on {where}: {one_line(error)}") from error
        try:
            inputs = _inputs(value)
        except DataError as error:
            kind = type(value).__name__
            raise DataError(f"collate_fn gives a {kind} for {where}, not a tensor") from error
        x = first_tensor(inputs)
        if x.ndim == 0 or len(x) != len(unit):
            raise DataError(
                f"collate_fn makes shape {list(x.shape)} of {where}, expected {len(unit)} rows: "
                "one per sample (on_error='skip' leaves out what it drops)"
            )
        try:
            self._check_shape(tuple(x.shape[1:]), unit[0])
        except DataError as error:
            raise DataError(f"collate_fn: {error}") from error
        labels = batch_labels(label, len(unit))
        return inputs, None if self.labelled is False else labels


def _inputs(value: Any) -> Any:
    """Tensors of one array, or of a tuple or dict of arrays that the model takes together."""
    if isinstance(value, Tensor | np.ndarray):
        return as_tensor(value)
    if isinstance(value, Mapping) and value:
        return {key: _inputs(entry) for key, entry in value.items()}
    arrays = isinstance(value, list) and all(isinstance(v, Tensor | np.ndarray) for v in value)
    if (isinstance(value, tuple) or arrays) and value:
        return tuple(_inputs(entry) for entry in value)
    raise DataError(no_array(value))


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
                self._note(error, index, failed)
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
