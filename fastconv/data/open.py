"""`open_data`: whatever is given, read by index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import (
    DataLoader,
    IterableDataset,
    TensorDataset,
    default_collate,
    default_convert,
)

from fastconv.data.arrays import ArraySamples
from fastconv.data.datasets import DatasetSamples
from fastconv.data.samples import Samples
from fastconv.data.streams import StreamSamples
from fastconv.errors import DataError


def open_data(data: Any, *, skip: bool = False, one_size: bool = True) -> Samples:
    """Read any data set by index.

    Args:
        data: an array `[N, C, ...]` (tensor, numpy array, or anything with `shape`, `dtype` and
            slices, such as an h5py data set); a map-style data set; an iterable data set of a
            stable order, whose samples are numbered as they come; or a `DataLoader`, whose data set
            is read in order of index with its `collate_fn`, whatever its sampler and batch size.

            A sample is `x` (an array, or a tuple or dict of arrays for a model of several inputs),
            `(x, y, ...)` or a dict: its input is under "x", "image", "input", "data",
            "pixel_values", "audio" or the like, else it is the array of most dimensions; its label
            is under "y", "label" or "target". Labels that are not integers are left out, unless
            `require_labels` asks for them.
        one_size: all samples must be of one shape, as batches of several need; otherwise only of as
            many channels and dimensions.
        skip: leave out samples that are None or cannot be read, instead of raising.

    Raises:
        DataError: an empty, random or otherwise unusable data set.
    """
    if isinstance(data, Samples):
        return data
    collate = worker_init = None
    if isinstance(data, DataLoader):
        worker_init = data.worker_init_fn
        if data.collate_fn not in (default_collate, default_convert):
            collate = data.collate_fn
        data = data.dataset
    iterable = hasattr(data, "__iter__") and not hasattr(data, "__len__")
    if isinstance(data, IterableDataset) or (iterable and not hasattr(data, "shape")):
        return StreamSamples(data, collate, worker_init, skip=skip, one_size=one_size)
    if isinstance(data, TensorDataset) and collate is None:
        labels = data.tensors[1] if len(data.tensors) > 1 else None
        return ArraySamples(data.tensors[0], labels, skip=skip)
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        return ArraySamples(data, None, skip=skip)
    if isinstance(data, Mapping):
        raise DataError(f"data holds several data sets: {', '.join(map(str, data))}; give one")
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or isinstance(data, str):
        raise DataError(
            "data must be a tensor [N, C, ...], a data set, a stream or a DataLoader, "
            f"got {type(data).__name__}"
        )
    return DatasetSamples(data, collate, worker_init, skip=skip, one_size=one_size)
