"""Reads one unit of samples from a map-style data set, in whichever process."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from fastconv.data.samples import Batch, Unit, as_tensor, batch_labels, one_line
from fastconv.errors import DataError

INPUT_NAMES = ("x", "image", "images", "img", "input", "inputs", "pixel_values", "audio", "video")
LABEL_NAMES = ("y", "label", "labels", "target", "targets")

Read = tuple[Tensor, Tensor | None, dict[int, str]]  # a batch, and why samples are missing in it


class Failure(NamedTuple):
    """An error on its way out of a worker process, as text: not every exception can travel."""

    message: str
    trace: str


class Reader(Dataset):
    """Reads one unit of samples: the collate step, with errors that name the index."""

    def __init__(self, dataset: Any, collate: Callable | None, *, skip: bool):
        self.dataset, self.collate, self.skip = dataset, collate, skip
        self.shape: tuple[int, ...] | None = None  # both known once sample 0 has been read
        self.labelled: bool | None = None

    def __getitem__(self, unit: Unit) -> Read | Failure:
        if get_worker_info() is None:
            return self.read(unit)
        try:
            return self.read(unit)
        except DataError as error:
            return Failure(str(error), traceback.format_exc())

    def read(self, unit: Unit) -> Read:
        """The batch of those samples that can be read, and why others cannot."""
        samples, failed = [], {}
        for index in unit:
            try:
                samples.append(self._sample(index))
            except DataError as error:
                if not self.skip:
                    raise
                failed[index] = str(error)
        if not samples:
            labels = torch.zeros(0, dtype=torch.int64) if self.labelled else None
            return torch.zeros(0, *(self.shape or ())), labels, failed
        if self.collate is not None:
            return *self._collated(samples, [i for i in unit if i not in failed]), failed
        found = [label for _, label in samples]
        unlabelled = None in found or self.labelled is False
        x = torch.stack([x for x, _ in samples])
        return x, None if unlabelled else torch.tensor(found), failed

    def _sample(self, index: int) -> Any:
        """One sample; input and label when they are not collated."""
        try:
            sample = self.dataset[index]
        except Exception as error:
            raise DataError(f"sample {index} cannot be read: {one_line(error)}") from error
        return sample if self.collate is not None else self._split(sample, index)

    def _split(self, sample: Any, index: int) -> tuple[Tensor, int | None]:
        value, label = _input_and_label(sample)
        if not isinstance(value, Tensor | np.ndarray):
            raise DataError(
                f"the input of sample {index} is a {type(value).__name__}, not a tensor [C, ...]; "
                "give the data set a transform that makes one"
            )
        x = as_tensor(value)
        shape = self.shape if self.shape is not None else tuple(x.shape)
        if tuple(x.shape) != shape:
            raise DataError(
                f"sample {index} has shape {list(x.shape)}, sample 0 has {list(shape)}; "
                "all must be equal: resize or crop them"
            )
        label = _integer(label)
        if self.labelled and label is None:
            raise DataError(f"sample {index} has no integer label, but sample 0 has one")
        return x, label

    def _collated(self, samples: list[Any], unit: Unit) -> Batch:
        where = f"samples {unit[0]} ... {unit[-1]}" if len(unit) > 1 else f"sample {unit[0]}"
        try:
            value, label = _input_and_label(self.collate(samples))  # type: ignore[misc]
        except Exception as error:
            raise DataError(f"collate_fn fails on {where}: {one_line(error)}") from error
        if not isinstance(value, Tensor | np.ndarray):
            raise DataError(f"collate_fn gives a {type(value).__name__} for {where}, not a tensor")
        x = as_tensor(value)
        expected = [len(unit), *(self.shape if self.shape is not None else x.shape[1:])]
        if list(x.shape) != expected:
            raise DataError(
                f"collate_fn makes shape {list(x.shape)} of {where}, expected {expected}: "
                "one row per sample, all of one shape"
            )
        labels = batch_labels(label, len(unit))
        return x, None if self.labelled is False else labels


def _input_and_label(sample: Any) -> tuple[Any, Any]:
    if isinstance(sample, Mapping):
        arrays = [v for v in sample.values() if isinstance(v, Tensor | np.ndarray)]
        named = [sample[name] for name in INPUT_NAMES if name in sample]
        label = next((sample[name] for name in LABEL_NAMES if name in sample), None)
        return next(iter([*named, *arrays]), None), label
    if isinstance(sample, tuple | list) and sample:
        return sample[0], sample[1] if len(sample) > 1 else None
    return sample, None


def _integer(value: Any) -> int | None:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        labels = batch_labels(value.reshape(-1), 1)
        return None if labels is None else int(labels)
    return int(value) if isinstance(value, int) else None
