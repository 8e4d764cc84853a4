"""The pictures of hits, which a file keeps once each, or as parts of the inputs that they show."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

from fastconv.format.patch_plan import PatchPlan, channels_first, framed, window
from fastconv.format.result import LayerInfo
from fastconv.store import schema
from fastconv.store.open_file import OpenFile
from fastconv.store.read_group import ArrayGroup

WHOLE = 2**28  # bytes of pictures that may be read at once where most of them are needed
PIECE = 2**24  # bytes of them that are read at a time
KEPT = 2**26  # bytes of pictures that are kept then, of all layers of a file


def open_patches(
    file: OpenFile, path: tuple[str, ...], info: LayerInfo, boxes: Callable[[], np.ndarray]
) -> tuple[Patches, PatchPlan | None]:
    """The pictures of a layer, and where they lie in its inputs if the file says so.

    Args:
        file, path: their group in the file.
        info: what is known of the layer.
        boxes: gives the boxes of the hits, [C, k, D, 2].
    """
    group, guard = ArrayGroup(file, path, {}, info).group, file.guard
    with file.reading():
        if "patch" in group:  # format 1
            images = guard.plain_dataset(group, "patch").dtype == np.uint8
            field = schema.patch_field(images, len(info.fields))
            return PatchesOfFormat1(
                file, ArrayGroup(file, path, {"patch": field}, info).dataset("patch")
            ), None
        row = ArrayGroup(file, path, {"row": schema.PATCH_ROW}, info)["row"]
        plan = schema.plan_from_json(guard.attribute(group, "plan"), len(info.fields))
        shared = guard.attribute(group, "pictures")
        owner = path if shared is None else ("run", "pictures", str(shared))
        place = file.group(*owner)
        images = guard.plain_dataset(place, "picture").dtype == np.uint8
        field = schema.picture_field(images, len(info.fields))
        pictures = guard.dataset(place, "picture", field, {"color": 3})
        if row.size and (row.min() < -1 or row.max() >= len(pictures)):
            raise guard.fail(f"{group.name}/row names pictures that are not there")
        if shared is None:
            return Patches(file, row, pictures), plan
        extent = pictures.shape[1:-1] if images else pictures.shape[2:]
        if plan is None or plan.extent != extent:
            raise guard.fail(f"{group.name} does not say which part of the inputs it shows")
        outside = _outside(guard.attribute(place, "outside"), pictures)
        return CutPatches(file, row, pictures, plan.start(boxes()), plan.size, outside), plan


def _outside(text: object, pictures: h5py.Dataset) -> np.ndarray | None:
    """Values [channels] that pictures have beyond the inputs; None for zero."""
    if text is None:
        return None
    values = np.asarray(json.loads(str(text)), pictures.dtype)
    channels = 3 if pictures.dtype == np.uint8 else pictures.shape[1]
    if values.shape != (channels,):
        raise ValueError(f"{values.size} values for {channels} channels")
    return values


class Patches:
    """The pictures of all hits: an array [C, k, ...] that is read where it is indexed.

    Indices are those of numpy for the first two dimensions: numbers, slices, masks, arrays.
    """

    def __init__(self, file: OpenFile, row: np.ndarray, pictures: h5py.Dataset) -> None:
        """Take the picture [C, k] of every hit, -1 of none, and the pictures [M, ...]."""
        self._file, self._row, self._pictures = file, row, pictures
        self._count = len(pictures)
        self.dtype, self.ndim = pictures.dtype, 1 + pictures.ndim
        self.shape: tuple[int, ...] = (*row.shape, *pictures.shape[1:])

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[()], dtype)

    def __getitem__(self, which: Any) -> np.ndarray:
        keys = self._keys()[which]  # [..., K]
        distinct, number = np.unique(keys.reshape(-1, keys.shape[-1]), axis=0, return_inverse=True)
        found = np.zeros((len(distinct), *self.shape[2:]), self.dtype)
        with self._file.reading():
            self._file.root  # noqa: B018 - raises when it was closed
            source = self._at_hand(distinct)
            for picture, key in zip(found, distinct.tolist(), strict=True):
                if key[0] >= 0:
                    self._read(source, key, picture)
        return found[number.reshape(keys.shape[:-1])]

    def _at_hand(self, keys: np.ndarray) -> h5py.Dataset | np.ndarray:
        """The pictures, from elsewhere at once: in memory if many are shown and they are small."""
        pictures, kept = self._pictures, self._file.kept
        if pictures.name in kept:
            return kept[pictures.name]
        many = len(keys) >= self._count / (1 if self._file.elsewhere else 4)
        if not many or pictures.nbytes > WHOLE:
            self._file.fetch([pictures], [self._region(k) for k in keys.tolist() if k[0] >= 0])
            return pictures
        read = self._whole()
        if read.nbytes + sum(array.nbytes for array in kept.values()) <= KEPT:
            kept[pictures.name] = read
        return read

    def _whole(self) -> np.ndarray:
        pictures = self._pictures
        found = np.empty(pictures.shape, pictures.dtype)
        step = max(1, PIECE * len(pictures) // max(1, pictures.nbytes))
        for start in range(0, len(pictures), step):
            rows = slice(start, min(start + step, len(pictures)))
            self._file.fetch([pictures], [(rows,)])
            found[rows] = pictures[rows]
        return found

    def _keys(self) -> np.ndarray:
        """[C, k, K]: what identifies the picture of a hit, its number first."""
        return self._row[..., None]

    def _region(self, key: Sequence[int]) -> tuple[slice, ...]:
        """Where the picture lies in the first dimensions of its dataset."""
        return (slice(key[0], key[0] + 1),)

    def _read(self, source: Any, key: Sequence[int], picture: np.ndarray) -> None:
        picture[...] = source[key[0]]


class PatchesOfFormat1(Patches):
    """Pictures that lie in the file as [C, k, ...]."""

    def __init__(self, file: OpenFile, pictures: h5py.Dataset) -> None:
        row = np.arange(math.prod(pictures.shape[:2])).reshape(pictures.shape[:2])
        super().__init__(file, row, pictures)
        self.ndim, self.shape, self._count = pictures.ndim, pictures.shape, row.size

    def _region(self, key: Sequence[int]) -> tuple[slice, ...]:
        return tuple(slice(i, i + 1) for i in divmod(key[0], self.shape[1]))

    def _read(self, source: Any, key: Sequence[int], picture: np.ndarray) -> None:
        picture[...] = source[divmod(key[0], self.shape[1])]


class CutPatches(Patches):
    """Pictures that are parts of reduced inputs."""

    def __init__(
        self,
        file: OpenFile,
        row: np.ndarray,
        pictures: h5py.Dataset,
        start: np.ndarray,
        size: tuple[int, ...],
        outside: np.ndarray | None,
    ) -> None:
        """Take the input of every hit, where its picture starts there [C, k, D], and its size.

        `outside` [channels] is what pictures show beyond the inputs: zero where it is None.
        """
        super().__init__(file, row, pictures)
        self._start, self._size, self._outside = start, size, outside
        images, extent = pictures.dtype == np.uint8, pictures.shape[1:]
        self._images, self._extent = images, extent
        self.shape = (*row.shape, *size, extent[-1]) if images else (*row.shape, extent[0], *size)

    def _keys(self) -> np.ndarray:
        return np.concatenate([self._row[..., None], self._start], -1)

    def _region(self, key: Sequence[int]) -> tuple[slice, ...]:
        row, *start = key
        before = () if self._images else (slice(0, self._extent[0]),)
        return (slice(row, row + 1), *before, *window(start, self._size, self._inputs())[1])

    def _inputs(self) -> tuple[int, ...]:
        """The spatial size of the inputs."""
        return self._extent[:-1] if self._images else self._extent[1:]

    def _read(self, source: Any, key: Sequence[int], picture: np.ndarray) -> None:
        row, *start = key
        inside, there = window(start, self._size, self._inputs())
        before = () if self._images else (slice(None),)
        shown = channels_first(source[(row, *before, *there)], images=self._images)
        found = framed(shown, inside, self._size, self._outside)
        channels_first(picture, images=self._images)[...] = found
