"""Datasets and NeXus groups that viewers draw at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from fastconv.records import Rows
from fastconv.store.atomic import reserve
from fastconv.store.codec import ChunkWriter, Compressor, checksum, chunk_shape, create_chunked
from fastconv.store.schema import FORMAT_VERSION, UNITS, Field, Plot
from fastconv.version import __version__

SMALL = 2**14  # bytes; below, a contiguous dataset is smaller and quicker than a chunked one
IMAGE = {
    "CLASS": "IMAGE",
    "IMAGE_SUBCLASS": "IMAGE_TRUECOLOR",
    "INTERLACE_MODE": "INTERLACE_PIXEL",
    "IMAGE_VERSION": "1.2",
}


def set_attribute(owner: h5py.HLObject, name: str, value: Any) -> None:
    """Set an attribute; text of fixed length, as the heap of other text can hang a reader."""
    if isinstance(value, str) or (isinstance(value, tuple) and value):
        texts = _fixed([value] if isinstance(value, str) else value)
        owner.attrs.create(name, texts[0] if isinstance(value, str) else texts, dtype=texts.dtype)
    else:
        owner.attrs[name] = value


def put_text(group: h5py.Group, name: str, text: str) -> None:
    """Write a scalar text."""
    value = _fixed([text])
    group.create_dataset(name, data=value[0], dtype=value.dtype)


def _fixed(texts: Sequence[str]) -> np.ndarray:
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return np.array(encoded, h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def put(
    group: h5py.Group,
    name: str,
    values: Any,
    field: Field,
    compressor: Compressor,
    chunk_rows: int = 1,
) -> h5py.Dataset:
    """Write an array, a dataset or `Rows`; big ones are compressed.

    Arrays get a `crc32` attribute over their bytes in C order; rows given as datasets, whose
    compressed chunks may be copied unseen, get `chunks_crc32` over what is stored.
    """
    dtype = np.dtype(field.dtype)
    streamed = isinstance(values, Rows)
    if not streamed and not isinstance(values, h5py.Dataset):
        values = np.asarray(values)
    shape = tuple(int(n) for n in values.shape)
    if len(shape) != len(field.dims):
        raise ValueError(f"{name} must have the dimensions {field.dims}, got {shape}")
    nbytes = int(np.prod(shape)) * dtype.itemsize
    if nbytes == 0 or (nbytes < SMALL and not streamed):
        small = np.zeros(shape, dtype) if streamed else np.asarray(values[()], dtype)
        small = small.reshape(shape)
        return _with_checksum(group.create_dataset(name, data=small), small)
    chunk = chunk_shape(shape, dtype.itemsize, chunk_rows)
    dataset = create_chunked(group, name, shape, dtype, chunk)
    writer = ChunkWriter(dataset, compressor)
    crc: int | None = 0
    for block in values.blocks if streamed else (values,):
        writer.append(block)
        copied = streamed and isinstance(block, h5py.Dataset)
        crc = None if copied or crc is None else checksum([_bytes(block, dtype)], crc)
    writer.close()
    if crc is None:
        compressor.drain()
        dataset.attrs["chunks_crc32"] = np.uint32(writer.chunks_checksum())
    else:
        dataset.attrs["crc32"] = np.uint32(crc)
    return dataset


def _with_checksum(dataset: h5py.Dataset, values: np.ndarray) -> h5py.Dataset:
    dataset.attrs["crc32"] = np.uint32(checksum([_bytes(values, values.dtype)]))
    return dataset


def _bytes(values: Any, dtype: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(values, dtype)


def data_group(
    parent: h5py.Group,
    name: str,
    fields: Mapping[str, Field],
    values: Mapping[str, Any],
    plot: Plot | None,
    compressor: Compressor,
    *,
    coordinates: Mapping[str, np.ndarray] | None = None,
    chunk_rows: int = 1,
) -> h5py.Group:
    """Write a group of arrays with named dimensions and, with a plot, what viewers need."""
    reserve(parent.file)
    group = parent.create_group(name)
    set_attribute(group, "NX_class", "NXdata" if plot else "NXcollection")
    scales: dict[str, h5py.Dataset] = {}
    for key, value in values.items():
        dataset = put(group, key, value, fields[key], compressor, chunk_rows)
        set_attribute(dataset, "long_name", key.replace("_", " "))
        if key in UNITS:
            set_attribute(dataset, "units", UNITS[key])
        if fields[key].dims == (key,):  # its own coordinate
            dataset.make_scale(key)
            scales[key] = dataset
            continue
        for axis, dim in enumerate(fields[key].dims):
            if dim not in scales:
                scales[dim] = _scale(group, dim, dataset.shape[axis], coordinates, compressor)
            dataset.dims[axis].attach_scale(scales[dim])
    if plot:
        _describe(group, plot)
    return group


def _scale(
    group: h5py.Group,
    dim: str,
    size: int,
    coordinates: Mapping[str, np.ndarray] | None,
    compressor: Compressor,
) -> h5py.Dataset:
    values = (coordinates or {}).get(dim)
    if values is None:
        values = np.arange(size, dtype="<i8" if size > 2**31 else "<i4")
    scale = put(group, dim, values, Field(values.dtype.str, (dim,)), compressor)
    scale.make_scale(dim)
    return scale


def _describe(group: h5py.Group, plot: Plot) -> None:
    set_attribute(group, "signal", plot.signal)
    set_attribute(group, "axes", plot.axes)
    if plot.auxiliary:
        set_attribute(group, "auxiliary_signals", plot.auxiliary)
    if plot.default_slice:
        set_attribute(group, "default_slice", plot.default_slice)
    if plot.interpretation:
        set_attribute(group[plot.signal], "interpretation", plot.interpretation)
    if plot.interpretation == "rgb-image":
        for key, value in IMAGE.items():
            group[plot.signal].attrs[key] = np.bytes_(value)


def finish(file: h5py.File, time: str | None) -> None:
    """The attributes of the root, `complete` last: a reader trusts nothing without it."""
    set_attribute(file, "NX_class", "NXroot")
    set_attribute(file, "default", "run")
    set_attribute(file, "creator", "fastconv")
    set_attribute(file, "creator_version", __version__)
    set_attribute(file, "fastconv_format_version", FORMAT_VERSION)
    if time is not None:
        set_attribute(file, "file_time", time)
    file.flush()
    file.attrs["complete"] = np.uint8(1)
