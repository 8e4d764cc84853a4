"""Makes a batch of samples, whatever form the data set gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastconv.capture.batch import first_tensor, map_tensors, tensors_in
from fastconv.data.input_and_label import column_of, input_and_label
from fastconv.data.labels import class_index, class_indices, truth, truths
from fastconv.data.samples import Batch
from fastconv.data.tensors import (
    Inputs,
    as_inputs,
    is_input,
    one_line,
    stacked,
)
from fastconv.errors import DataError

Columns = dict[str, list[Any]]
# a batch, why samples are missing in it, and its columns
Read = tuple[Inputs, Tensor | None, dict[int, str], Columns]
_UNREAD: Batch = (torch.zeros(0), None)


class Collator:
    """Makes the batch of some samples, with errors that name the index.

    Every sample must be `like` the first one that was read: as many inputs, of the same shapes (or
    only of as many channels and dimensions, unless `one_size`), with a label if that has one.

    Attributes:
        columns: names of what else is kept of every sample.
        truths: take 0 and 1, alone or in vectors, for labels too, and refuse other numbers.
    """

    columns: tuple[str, ...] = ()
    truths: bool = False

    def __init__(self, collate: Callable | None, *, skip: bool, one_size: bool = True):
        self.collate, self.skip, self.one_size = collate, skip, one_size
        self._nothing: Batch | None = None  # a batch of no rows, like all others
        self._label_shape: tuple[int, ...] | None = None  # of one sample
        self._unlabelled = False

    def like(self, x: Inputs, label: Tensor | None) -> tuple[tuple[int, ...], str]:
        """Expect samples as those of a batch; returns shape and dtype of its first input."""
        self._label_shape = None if label is None else tuple(label.shape[1:])
        self._unlabelled = label is None
        self._nothing = map_tensors(x, lambda t: t[:0]), None if label is None else label[:0]
        first = first_tensor(x)
        return tuple(first.shape[1:]), str(first.dtype).removeprefix("torch.")

    def require_labels(self) -> None:
        """Take `truths`; what samples are like must be told anew."""
        self.truths, self._label_shape, self._unlabelled = True, None, False

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
                self.note(error, index, failed)
        if self.collate:
            x, labels = self._collated(kept, failed)
        else:
            x, labels = self._stacked(list(kept.values()))
        rows = [values[i] for i in kept if i not in failed]
        columns = {name: [row[c] for row in rows] for c, name in enumerate(self.columns)}
        return x, labels, failed, columns

    def _columns(self, sample: Any, index: int) -> list[Any]:
        found = []
        for name in self.columns:
            try:
                found.append(column_of(sample, name))
            except DataError as error:
                raise DataError(f"column {name!r} of sample {index} {error}") from error
        return found

    def _stacked(self, samples: list[tuple[Inputs, Tensor | None]]) -> Batch:
        if not samples:
            return self._nothing or _UNREAD
        x, labels = stacked([x for x, _ in samples]), [label for _, label in samples]
        known = [label for label in labels if label is not None]
        labelled = len(known) == len(labels) and not self._unlabelled
        return x, torch.stack(known) if labelled else None

    def note(self, error: DataError, index: int, failed: dict[int, str]) -> None:
        """Raise the error of a sample, or note it where samples may be skipped."""
        if not self.skip:
            raise error
        failed[index] = str(error)

    def _split(self, sample: Any, index: int) -> tuple[Inputs, Tensor | None]:
        try:
            value, label = input_and_label(sample)
            x = as_inputs(value)
        except DataError as error:
            raise DataError(f"the input of sample {index} {error}") from error
        self._check_like(map_tensors(x, lambda t: t[None]), index)
        return x, self._label(label, index)

    def _label(self, value: Any, index: int) -> Tensor | None:
        number = class_index(value)
        label = None if number is None else torch.tensor(number)
        if label is None and self.truths:
            try:
                label = truth(value)
            except DataError as error:
                raise DataError(f"the label of sample {index} {error}") from error
        expected = self._label_shape
        if expected is not None and label is None:
            raise DataError(f"sample {index} has no integer label, but sample 0 has one")
        if expected is not None and label is not None and tuple(label.shape) != expected:
            raise DataError(
                f"the label of sample {index} is {_values(label.shape)}, that of sample 0 "
                f"{_values(expected)}; all must be alike"
            )
        return label

    def _check_like(self, x: Inputs, index: int) -> None:
        """Compare a batch with that of the first sample, but for the number of its rows."""
        if self._nothing is None:
            return
        expected = self._nothing[0]
        if _form(x) != _form(expected):
            raise DataError(f"sample {index} has other inputs than sample 0, or has them nested")
        for tensor, first in zip(tensors_in(x), tensors_in(expected), strict=True):
            shape, wanted = list(tensor.shape[1:]), list(first.shape[1:])
            same_kind = len(shape) == len(wanted) and shape[:1] == wanted[:1]
            if shape == wanted or (same_kind and not self.one_size):
                continue
            remedy = "all must have as many channels and dimensions"
            if same_kind:
                remedy = "all must be equal: resize or crop them"
            raise DataError(f"sample {index} has shape {shape}, sample 0 has {wanted}; {remedy}")

    def _collated(self, samples: dict[int, Any], failed: dict[int, str]) -> Batch:
        """The batch that `collate_fn` makes.

        Samples that it drops, or fails on, are found one by one if they may be skipped.
        """
        if not samples:
            return self._nothing or _UNREAD
        try:
            return self._collate(samples)
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
        return self._collate(kept) if kept else self._nothing or _UNREAD

    def _collate(self, samples: dict[int, Any]) -> Batch:
        unit = list(samples)
        where = f"samples {unit[0]} ... {unit[-1]}" if len(unit) > 1 else f"sample {unit[0]}"
        try:
            value, label = input_and_label(self.collate(list(samples.values())))  # type: ignore[misc]
        except Exception as error:
            raise DataError(f"collate_fn fails on {where}: {one_line(error)}") from error
        if not is_input(value):
            raise DataError(f"collate_fn gives a {type(value).__name__} for {where}, not a tensor")
        x = as_inputs(value)
        for tensor in tensors_in(x):
            if tensor.ndim == 0 or len(tensor) != len(unit):
                raise DataError(
                    f"collate_fn makes shape {list(tensor.shape)} of {where}, expected "
                    f"{len(unit)} rows: one per sample (on_error='skip' leaves out what it drops)"
                )
        try:
            self._check_like(x, unit[0])
        except DataError as error:
            raise DataError(f"collate_fn: {error}") from error
        return x, None if self._unlabelled else self._labels(label, len(unit), where)

    def _labels(self, value: Any, count: int, where: str) -> Tensor | None:
        labels = class_indices(value, count)
        if labels is not None or not self.truths:
            return labels
        try:
            return truths(value, count)
        except DataError as error:
            raise DataError(f"collate_fn: a label of {where} {error}") from error


def _values(shape: Sequence[int]) -> str:
    return f"{shape[0]} values" if len(shape) else "one number"


def _form(x: Inputs) -> Any:
    """How tensors are nested, and their names."""
    if isinstance(x, dict):
        return {name: _form(part) for name, part in x.items()}
    return None if isinstance(x, Tensor) else [_form(part) for part in x]
