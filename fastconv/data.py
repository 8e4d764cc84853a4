"""Data sets of every accepted kind, read by index: `open_data(data) -> Samples`."""

from __future__ import annotations

import hashlib
import os
import signal
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
    get_worker_info,
)

from fastconv.errors import DataError, InputError

INPUT_NAMES = ("x", "image", "images", "img", "input", "inputs", "pixel_values", "audio", "video")
LABEL_NAMES = ("y", "label", "labels", "target", "targets")
_FINGERPRINTED = 16

Unit = Sequence[int]  # the sample indices of one batch: a range, or a list
Batch = tuple[Tensor, Tensor | None]
Read = tuple[Tensor, Tensor | None, dict[int, str]]  # a batch, and why samples are missing in it


class Samples(ABC):
    """A data set that is read by index and gives the same values each time.

    Attributes:
        sample_shape: shape of one input, without the batch dimension.
        input_dtype: name of the dtype that the data set gives. Integers and booleans reach the
            model as float32 with the same values (0 ... 255 for uint8: nothing is scaled); other
            dtypes are left as they are.
        skip: leave samples that cannot be read, or do not fit the others, out of the batches.
        skipped: these samples and why, as their batches were last read.
    """

    skip: bool = False
    skipped: dict[int, str]
    kind: str
    sample_shape: tuple[int, ...]
    input_dtype: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, units: Sequence[Unit], num_workers: int = 0) -> Iterator[Batch]:
        """Yield (input [n, ...], label int64 [n] or None), one batch per unit, in their order.

        Its rows are the samples `kept(unit)`; all of the unit unless `skip` is set.

        Raises:
            DataError: a sample that raises or differs in shape (the message has its index), or a
                worker process that died.
        """

    def kept(self, unit: Unit) -> list[int]:
        """The samples of a unit that its batch held when it was last read."""
        return [i for i in unit if i not in self.skipped]

    def first(self) -> int:
        """The first sample that can be read."""
        for index in range(len(self)):
            next(iter(self.batches([[index]])))
            if index not in self.skipped:
                return index
        raise DataError(f"none of the {len(self)} samples can be read: {self.skipped[0]}")

    @abstractmethod
    def keys(self) -> list[str] | None:
        """One name per sample (a file's path inside its folder), or None."""

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data; the same in every process and on every machine.

        `contents_sha256` covers inputs and labels of 16 evenly spaced samples, the first and the
        last included; `keys_sha256` covers every key. Random augmentation would change it from
        run to run, so `open_data` refuses a data set whose first sample changes when read twice.
        """
        n = len(self)
        chosen = sorted({round(i) for i in np.linspace(0, n - 1, min(n, _FINGERPRINTED))})
        contents = hashlib.sha256()
        for x, label in self.batches([[i] for i in chosen]):
            contents.update(_bytes(x) + (b"" if label is None else _bytes(label)))
        keys = self.keys()
        joined = None if keys is None else "\0".join(keys).encode(errors="surrogateescape")
        return {
            "length": n,
            "kind": self.kind,
            "keys_sha256": None if joined is None else hashlib.sha256(joined).hexdigest(),
            "contents_sha256": contents.hexdigest(),
            "sample_shape": list(self.sample_shape),
            "dtype": self.input_dtype,
        }


def open_data(data: Any, *, skip: bool = False) -> Samples:
    """Read any data set by index.

    Args:
        data: an array `[N, C, ...]` (tensor, numpy array, or anything with `shape`, `dtype` and
            slices, such as an h5py data set); a map-style data set whose samples are `x`,
            `(x, y, ...)` or a dict (input under "x", "image", "input", "pixel_values", "audio" or
            the like, else its first tensor; label under "y", "label" or "target"); or a
            `DataLoader`, whose data set is read in order of index with its `collate_fn`, whatever
            its sampler and batch size. Labels that are not integers are left out.
        skip: leave out samples that cannot be read, instead of raising.

    Raises:
        DataError: an empty, iterable, random or otherwise unusable data set.
    """
    if isinstance(data, Samples):
        return data
    collate = worker_init = None
    if isinstance(data, DataLoader):
        worker_init = data.worker_init_fn
        if data.collate_fn not in (default_collate, default_convert):
            collate = data.collate_fn
        data = data.dataset
    if isinstance(data, IterableDataset):
        raise DataError(
            f"{type(data).__name__} is an iterable data set: its samples have no index, so hits "
            "could not be found again; give a map-style data set or a tensor"
        )
    if isinstance(data, TensorDataset) and collate is None:
        labels = data.tensors[1] if len(data.tensors) > 1 else None
        return _ArraySamples(data.tensors[0], labels, skip=skip)
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        return _ArraySamples(data, None, skip=skip)
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or isinstance(data, str):
        raise DataError(
            "data must be a tensor [N, C, ...], a map-style data set or a DataLoader, "
            f"got {type(data).__name__}"
        )
    return _DatasetSamples(data, collate, worker_init, skip=skip)


class _ArraySamples(Samples):
    """An array sliced directly, without a loader."""

    kind = "array"

    def __init__(self, data: Any, labels: Tensor | None, *, skip: bool):
        self.skip, self.skipped = skip, {}
        if len(data.shape) < 2:
            raise DataError(f"an array of samples is [N, C, ...], got shape {list(data.shape)}")
        if data.shape[0] == 0:
            raise DataError("the data set is empty")
        self.data = data.detach() if isinstance(data, Tensor) else data
        self.labels = None if labels is None else _batch_labels(labels, len(self))
        self.sample_shape = tuple(int(n) for n in data.shape[1:])
        self.input_dtype = str(data.dtype).removeprefix("torch.")
        _check_not_random(self)

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def batches(self, units: Sequence[Unit], num_workers: int = 0) -> Iterator[Batch]:
        del num_workers  # slicing needs none
        for unit in units:
            _check_unit(unit, len(self))
            x = self._values(unit)
            rows = self.kept(unit)
            label = None if self.labels is None else self.labels[rows]
            yield x.clone(), label  # a model that works in place must not change the data

    def _values(self, unit: Unit) -> Tensor:
        rows: slice | list[int] = list(unit)
        if isinstance(unit, range) and unit.step > 0:
            rows = slice(unit.start, unit.stop, unit.step)
        for index in unit:
            self.skipped.pop(index, None)
        try:
            return _prepared(_as_tensor(self._read(rows)))
        except OSError as error:  # of a file behind the array
            if not self.skip:
                raise DataError(
                    f"samples {unit[0]} ... cannot be read: {_one_line(error)}"
                ) from error
        found = [x for i in unit if (x := self._one(i)) is not None]
        return torch.stack(found) if found else torch.zeros(0, *self.sample_shape)

    def _one(self, index: int) -> Tensor | None:
        try:
            return _prepared(_as_tensor(self._read([index])))[0]
        except OSError as error:
            self.skipped[index] = f"sample {index} cannot be read: {_one_line(error)}"
            return None

    def _read(self, rows: slice | list[int]) -> Any:
        if isinstance(rows, slice) or isinstance(self.data, Tensor | np.ndarray):
            return self.data[rows]
        return np.stack([self.data[i] for i in rows])  # h5py takes only increasing lists

    def keys(self) -> list[str] | None:
        return None


class _DatasetSamples(Samples):
    """A map-style data set, read through a torch DataLoader."""

    def __init__(
        self, dataset: Any, collate: Callable | None, worker_init: Callable | None, *, skip: bool
    ):
        self.skip, self.skipped = skip, {}
        if len(dataset) == 0:
            raise DataError(f"the data set is empty ({type(dataset).__name__})")
        self.dataset, self.worker_init = dataset, worker_init
        self.kind = type(dataset).__name__
        self.reader = _Reader(dataset, collate, skip=skip)
        x, label = self.reader.read([self.first()])[:2]
        self.sample_shape = self.reader.shape = tuple(x.shape[1:])
        self.input_dtype = str(x.dtype).removeprefix("torch.")
        self.reader.labelled = label is not None
        _check_not_random(self)

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, units: Sequence[Unit], num_workers: int = 0) -> Iterator[Batch]:
        if num_workers < 0:
            raise InputError(f"num_workers must be at least 0, got {num_workers}")
        for unit in units:
            _check_unit(unit, len(self))
        loader = DataLoader(
            self.reader,
            batch_size=None,  # an index of the reader is a whole unit
            sampler=units,
            num_workers=num_workers,
            collate_fn=_unchanged,
            worker_init_fn=partial(_start_worker, self.worker_init),
        )
        batches = iter(loader)
        for number in range(len(units) + 1):
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise DataError(
                    f"a worker process that reads the data died ({_one_line(error)}); "
                    "fewer workers or a smaller batch need less memory"
                ) from error
            if batch is None:
                return
            if isinstance(batch, _Failure):
                raise DataError(batch.message) from RuntimeError(batch.trace)
            for index in units[number]:
                self.skipped.pop(index, None)
            self.skipped.update(batch[2])
            yield _prepared(batch[0]), batch[1]

    def keys(self) -> list[str] | None:
        return _keys(self.dataset)


class _Failure(NamedTuple):
    """An error on its way out of a worker process, as text: not every exception can travel."""

    message: str
    trace: str


class _Reader(Dataset):
    """Reads one unit of samples: the collate step, with errors that name the index."""

    def __init__(self, dataset: Any, collate: Callable | None, *, skip: bool):
        self.dataset, self.collate, self.skip = dataset, collate, skip
        self.shape: tuple[int, ...] | None = None  # both known once sample 0 has been read
        self.labelled: bool | None = None

    def __getitem__(self, unit: Unit) -> Read | _Failure:
        if get_worker_info() is None:
            return self.read(unit)
        try:
            return self.read(unit)
        except DataError as error:
            return _Failure(str(error), traceback.format_exc())

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
            raise DataError(f"sample {index} cannot be read: {_one_line(error)}") from error
        return sample if self.collate is not None else self._split(sample, index)

    def _split(self, sample: Any, index: int) -> tuple[Tensor, int | None]:
        value, label = _input_and_label(sample)
        if not isinstance(value, Tensor | np.ndarray):
            raise DataError(
                f"the input of sample {index} is a {type(value).__name__}, not a tensor [C, ...]; "
                "give the data set a transform that makes one"
            )
        x = _as_tensor(value)
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
            raise DataError(f"collate_fn fails on {where}: {_one_line(error)}") from error
        if not isinstance(value, Tensor | np.ndarray):
            raise DataError(f"collate_fn gives a {type(value).__name__} for {where}, not a tensor")
        x = _as_tensor(value)
        expected = [len(unit), *(self.shape if self.shape is not None else x.shape[1:])]
        if list(x.shape) != expected:
            raise DataError(
                f"collate_fn makes shape {list(x.shape)} of {where}, expected {expected}: "
                "one row per sample, all of one shape"
            )
        labels = _batch_labels(label, len(unit))
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
        labels = _batch_labels(value.reshape(-1), 1)
        return None if labels is None else int(labels)
    return int(value) if isinstance(value, int) else None


def _batch_labels(value: Any, n: int) -> Tensor | None:
    """Integer labels int64 [n], or None for anything else."""
    if isinstance(value, list | tuple) and value and all(isinstance(v, int) for v in value):
        value = torch.tensor(value)
    if not isinstance(value, Tensor | np.ndarray):
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind not in "iub":
        return None
    labels = _as_tensor(value)
    if (
        labels.is_floating_point()
        or labels.is_complex()
        or tuple(labels.shape) not in {(n,), (n, 1)}
    ):
        return None
    return labels.reshape(n).long().cpu()


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise DataError(f"an input must be an array of real numbers, got dtype {array.dtype}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    usable = array.flags.writeable and min(array.strides, default=0) >= 0  # by torch, as it is
    return torch.from_numpy(array if usable else array.copy())


def _prepared(x: Tensor) -> Tensor:
    return x if x.is_floating_point() or x.is_complex() else x.float()


def _start_worker(then: Callable | None, worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run ends after a whole unit
    if then is not None:
        then(worker)


def _check_unit(unit: Unit, n: int) -> None:
    if len(unit) == 0 or min(unit) < 0 or max(unit) >= n:
        raise InputError(f"sample indices must be in 0 ... {n - 1} and not empty, got {unit}")


def _check_not_random(samples: Samples) -> None:
    index = samples.first()
    (first, _), (second, _) = samples.batches([[index], [index]])
    if _bytes(first) != _bytes(second):
        raise DataError(
            f"the data set is random: sample {index} differs when read twice, so no result could "
            "be resumed or verified; switch its random augmentation off"
        )


def _keys(dataset: Any) -> list[str] | None:
    if isinstance(dataset, Subset):
        inner = _keys(dataset.dataset)
        return None if inner is None else [inner[i] for i in dataset.indices]
    for name in ("keys", "samples", "imgs"):
        found = getattr(dataset, name, None)
        if not isinstance(found, list | tuple) or len(found) != len(dataset):
            continue
        names = [f[0] if isinstance(f, tuple | list) and f else f for f in found]
        if all(isinstance(key, str | Path) for key in names):
            root = getattr(dataset, "root", None)
            return [_inside(key, root) for key in names]
    return None


def _inside(key: str | Path, root: Any) -> str:
    """The key as a path inside its folder, where it is one."""
    path = Path(key)
    if isinstance(root, str | Path) and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return os.fspath(key)


def _bytes(x: Tensor) -> bytes:
    return x.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _unchanged(batch: Any) -> Any:
    return batch
