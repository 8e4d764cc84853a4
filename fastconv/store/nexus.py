"""Datasets and NeXus groups that viewers draw at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5ds, h5f, h5g, h5i, h5r, h5t

from fastconv.format.result import Rows
from fastconv.store.atomic import reserve
from fastconv.store.codec import CHUNK_BYTES, ChunkWriter, Compressor, checksum, chunk_shape
from fastconv.store.low_level import new_chunked, new_dataset, new_group, set_attribute, space
from fastconv.store.schema import FORMAT_VERSION, UNITS, Field, Plot
from fastconv.version import __version__

MAX_REFERENCES = 1000  # to one dimension scale, which lists them in an attribute of at most 64 KiB
SMALL = 2**14  # bytes; below, a contiguous dataset is smaller and quicker than a chunked one
IMAGE = {
    "CLASS": "IMAGE",
    "IMAGE_SUBCLASS": "IMAGE_TRUECOLOR",
    "INTERLACE_MODE": "INTERLACE_PIXEL",
    "IMAGE_VERSION": "1.2",
}


class Output:
    """A file being written: what compresses its chunks, and the dimension scales it has already.

    HDF5's own H5DSattach_scale writes the lists of both sides anew for every dimension of every
    dataset: it takes eight times as long, and the room it frees scatters what is written later.
    """

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor
        self._scales: dict[tuple[str, str, bytes], _Scale] = {}
        self._full: list[_Scale] = []

    def scale(self, group: h5g.GroupID, dim: str, values: np.ndarray) -> _Scale:
        """A dimension scale in a group: a hard link to an equal one, or a new dataset."""
        key = (dim, values.dtype.str, values.tobytes())
        known = self._scales.get(key)
        if known is not None and len(known.uses) < MAX_REFERENCES:
            group.links.create_hard(dim.encode(), known.group, dim.encode())
            return known
        if known is not None:
            self._full.append(known)
        dataset = put(group, dim, values, Field(values.dtype.str, (dim,)), self)
        make_scale(dataset, dim)
        set_attribute(dataset, "long_name", dim.replace("_", " "))
        reference = np.array([h5r.create(dataset, b".", h5r.OBJECT)], h5py.ref_dtype)
        self._scales[key] = _Scale(group, dataset, reference)
        return self._scales[key]

    def finish(self) -> None:
        """Write into each dimension scale of which datasets it names a dimension."""
        for scale in (*self._full, *self._scales.values()):
            if scale.uses:
                uses = np.array(scale.uses, _USE)
                reserve(h5i.get_file_id(scale.dataset), uses.nbytes)
                kind = h5t.py_create(_USE, logical=True)
                h5a.create(scale.dataset, b"REFERENCE_LIST", kind, space(uses.shape)).write(uses)


_SCALES = h5py.vlen_dtype(h5py.ref_dtype)  # of one dimension
_USE = np.dtype([("dataset", h5py.ref_dtype), ("dimension", "<u4")])


@dataclass
class _Scale:
    """A dimension scale, the group where it was written, and which dimensions it names."""

    group: h5g.GroupID
    dataset: h5d.DatasetID
    reference: np.ndarray  # [1], to the dataset
    uses: list[tuple[h5r.Reference, int]] = field(default_factory=list)


def attach(dataset: h5d.DatasetID, scales: Sequence[_Scale]) -> None:
    """Name the dimensions of a dataset by a scale each."""
    lists = np.empty(len(scales), _SCALES)
    owner = h5r.create(dataset, b".", h5r.OBJECT)
    for axis, scale in enumerate(scales):
        lists[axis] = scale.reference
        scale.uses.append((owner, axis))
    on_disk, in_memory = _scales_types()
    h5a.create(dataset, b"DIMENSION_LIST", on_disk, space(lists.shape)).write(lists, in_memory)


@cache
def _scales_types() -> tuple[h5t.TypeID, h5t.TypeID]:
    return h5t.py_create(_SCALES, logical=True), h5t.py_create(_SCALES)


def put(
    group: h5g.GroupID,
    name: str,
    values: Any,
    field: Field,
    output: Output,
    chunk_rows: int = 1,
    chunk_bytes: int = CHUNK_BYTES,
) -> h5d.DatasetID:
    """Write an array or `Rows`; big ones are compressed, so they must not change any more.

    Arrays get a `crc32` attribute over their bytes in C order; rows given as datasets, whose
    compressed chunks may be copied unseen, get `chunks_crc32` over what is stored.
    """
    dtype = np.dtype(field.dtype)
    streamed = isinstance(values, Rows)
    values = values if streamed else np.ascontiguousarray(values, dtype)
    shape = tuple(int(n) for n in values.shape)
    if len(shape) != len(field.dims):
        raise ValueError(f"{name} must have the dimensions {field.dims}, got {shape}")
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes == 0 or (nbytes < SMALL and not streamed):
        small = np.zeros(shape, dtype) if streamed else values
        made = new_dataset(group, name, small)
        set_attribute(made, "crc32", np.uint32(checksum([small])))
        return made
    chunk = chunk_shape(shape, dtype.itemsize, chunk_rows, chunk_bytes)
    made = new_chunked(group, name, shape, dtype, chunk)
    writer = ChunkWriter(h5py.Dataset(made), output.compressor, checked=streamed)
    crc: int | None = 0
    for block in values.blocks if streamed else (values,):
        writer.append(block)
        if isinstance(block, h5py.Dataset):
            crc = None
        elif crc is not None:
            crc = checksum([np.ascontiguousarray(block, dtype)], crc)
    writer.close()
    if crc is None:
        output.compressor.drain()
        set_attribute(made, "chunks_crc32", np.uint32(writer.chunks_checksum()))
    else:
        set_attribute(made, "crc32", np.uint32(crc))
    return made


def data_group(
    parent: h5g.GroupID,
    name: str,
    fields: Mapping[str, Field],
    values: Mapping[str, Any],
    plot: Plot | None,
    output: Output,
    *,
    coordinates: Mapping[str, np.ndarray] | None = None,
    chunk_rows: int = 1,
    chunk_bytes: int = CHUNK_BYTES,
) -> h5g.GroupID:
    """Write a group of arrays with named dimensions and, with a plot, what viewers need.

    Room for them must have been reserved.
    """
    group = new_group(parent, name)
    set_attribute(group, "NX_class", "NXdata" if plot else "NXcollection")
    scales: dict[str, _Scale] = {}
    for key, value in values.items():
        if fields[key].dims == (key,):  # its own coordinate
            scales[key] = output.scale(group, key, value)
            continue
        dataset = put(group, key, value, fields[key], output, chunk_rows, chunk_bytes)
        set_attribute(dataset, "long_name", key.replace("_", " "))
        if key in UNITS:
            set_attribute(dataset, "units", UNITS[key])
        for axis, dim in enumerate(fields[key].dims):
            if dim not in scales:
                found = (coordinates or {}).get(dim)
                scales[dim] = output.scale(
                    group, dim, counting(dataset.shape[axis]) if found is None else found
                )
        if fields[key].dims:
            attach(dataset, [scales[dim] for dim in fields[key].dims])
        if plot and key == plot.signal:
            _describe_signal(dataset, plot)
    if plot:
        _describe(group, plot)
    return group


def counting(size: int) -> np.ndarray:
    """0, 1, 2, ...: the coordinates of a dimension that only counts."""
    return np.arange(size, dtype="<i8" if size > 2**31 else "<i4")


def make_scale(dataset: h5d.DatasetID, name: str) -> None:
    """Let a dataset name a dimension of others."""
    h5ds.set_scale(dataset, name.encode())


def _describe_signal(signal: h5d.DatasetID, plot: Plot) -> None:
    if plot.interpretation:
        set_attribute(signal, "interpretation", plot.interpretation)
    if plot.interpretation == "rgb-image":
        for key, value in IMAGE.items():
            set_attribute(signal, key, np.bytes_(value))


def _describe(group: h5g.GroupID, plot: Plot) -> None:
    set_attribute(group, "signal", plot.signal)
    set_attribute(group, "axes", plot.axes)
    if plot.auxiliary:
        set_attribute(group, "auxiliary_signals", plot.auxiliary)
    if plot.default_slice:
        set_attribute(group, "default_slice", plot.default_slice)


def finish(file: h5f.FileID, time: str | None) -> None:
    """The attributes of the root, `complete` last: a reader trusts nothing without it."""
    root = h5g.open(file, b"/")
    set_attribute(root, "NX_class", "NXroot")
    set_attribute(root, "default", "run")
    set_attribute(root, "creator", "fastconv")
    set_attribute(root, "creator_version", __version__)
    set_attribute(root, "fastconv_format_version", FORMAT_VERSION)
    if time is not None:
        set_attribute(root, "file_time", time)
    h5f.flush(file)
    set_attribute(root, "complete", np.uint8(1))
