"""Groups, datasets and attributes through h5py's low-level interface.

A file of 20 layers has about 500 small datasets and 2,100 attributes. The high-level
interface takes several times as long for each, most of it to make the same types, spaces and
property lists again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5p, h5s, h5t


def new_group(parent: h5g.GroupID, name: str, *, ordered: bool = False) -> h5g.GroupID:
    """A group, which remembers the order of its children if asked to."""
    return h5g.create(parent, name.encode(), gcpl=_group_properties(ordered))


def new_dataset(group: h5g.GroupID, name: str, values: np.ndarray) -> h5d.DatasetID:
    """A contiguous dataset of these values."""
    kind, values = type_of(values.dtype), np.require(values, requirements="C")
    made = h5d.create(group, name.encode(), kind, space(values.shape), dcpl=_contiguous())
    made.write(h5s.ALL, h5s.ALL, values, kind)
    return made


def new_chunked(
    group: h5g.GroupID, name: str, shape: Sequence[int], dtype: np.dtype, chunk: Sequence[int]
) -> h5d.DatasetID:
    """An empty dataset that declares shuffle, for values of several bytes, and deflate."""
    properties = _chunked(tuple(chunk), dtype.itemsize > 1)
    return h5d.create(group, name.encode(), type_of(dtype), space(tuple(shape)), dcpl=properties)


def set_attribute(owner: h5g.GroupID | h5d.DatasetID, name: str, value: Any) -> None:
    """Set a new attribute; text of fixed length, as the heap of other text can hang a reader."""
    values = _text(value) if isinstance(value, str | tuple) else np.asarray(value)
    kind = type_of(values.dtype)
    h5a.create(owner, name.encode(), kind, space(values.shape)).write(values, kind)


def put_text(group: h5g.GroupID, name: str, text: str) -> None:
    """Write a scalar text."""
    new_dataset(group, name, text_array(text))


@lru_cache(1024)
def _text(value: str | tuple[str, ...]) -> np.ndarray:
    return text_array(value)


def text_array(texts: str | Sequence[str]) -> np.ndarray:
    """UTF-8 of fixed length."""
    if isinstance(texts, str):
        encoded: Any = texts.encode("utf-8", "replace")
        return np.array(encoded, _text_dtype(max(1, len(encoded))))
    encoded = [str(text).encode("utf-8", "replace") for text in texts]
    return np.array(encoded, _text_dtype(max([1, *map(len, encoded)])))


@lru_cache(1024)
def _text_dtype(size: int) -> np.dtype:
    return h5py.string_dtype("utf-8", size)


def type_of(dtype: np.dtype) -> h5t.TypeID:
    """The type on disk and in memory: they are the same."""
    if dtype.kind == "S" and h5py.check_string_dtype(dtype).encoding == "utf-8":
        return _text_type(dtype.itemsize)
    return _type(dtype.str)


@lru_cache(1024)
def _text_type(size: int) -> h5t.TypeID:
    return h5t.py_create(_text_dtype(size), logical=True)


@lru_cache(1024)
def _type(name: str) -> h5t.TypeID:
    return h5t.py_create(np.dtype(name), logical=True)


@lru_cache(1024)
def space(shape: tuple[int, ...]) -> h5s.SpaceID:
    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


@cache
def _contiguous() -> h5p.PropDCID:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    return properties


@lru_cache(1024)
def _chunked(chunk: tuple[int, ...], shuffle: bool) -> h5p.PropDCID:  # noqa: FBT001
    properties = _contiguous().copy()
    properties.set_chunk(chunk)
    if shuffle:
        properties.set_shuffle()
    properties.set_deflate(1)
    return properties


@cache
def _group_properties(ordered: bool) -> h5p.PropGCID:  # noqa: FBT001
    properties = h5p.create(h5p.GROUP_CREATE)
    if ordered:
        order = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
        properties.set_link_creation_order(order)
        properties.set_attr_creation_order(order)
        properties.set_attr_phase_change(64, 32)  # in the header, not in a heap with an index
    properties.set_obj_track_times(False)
    return properties
