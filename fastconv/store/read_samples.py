"""Reading the table of samples: keys, labels, outcomes, columns, classes, thumbnails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from fastconv.format.result import SampleTable
from fastconv.store import schema
from fastconv.store.open_file import OpenFile
from fastconv.store.schema import Field


def read_samples(file: OpenFile) -> SampleTable | None:
    """The table of the samples; thumbnails are read when they are asked for."""
    if not file.has("run", "samples"):
        return None
    group = file.group("run", "samples")
    with file.reading():
        guard = file.guard
        count = guard.attribute(group, "count")
        if not isinstance(count, int):
            raise guard.fail("the number of samples is missing")
        table = SampleTable(count)
        sizes = {"sample": count}
        if "key" in group:
            table.keys = _texts(file, ("run", "samples"), "key", count).tolist()
        if "label" in group:
            table.labels = _of_samples(file, group, {"label": "<i8"}, sizes)["label"]
        if "skipped" in group:
            field = Field("<i8", ("skipped",))
            table.skipped = guard.dataset(group, "skipped", field, sizes)[()].tolist()
        run = file.group("run")
        if "outcomes" in run:
            held = file.group("run", "outcomes")
            table.outcomes = _of_samples(file, held, schema.OUTCOMES, sizes)
        if "columns" in run:
            table.columns = _columns(file, count)
        if "classes" in run:
            table.classes = _texts(file, ("run",), "classes", None).tolist()
        if "thumbnails" in run:
            table.thumbnails = Thumbnails(file)
        return table


def _of_samples(
    file: OpenFile, group: h5py.Group, dtypes: Mapping[str, str], sizes: dict[str, int]
) -> dict[str, np.ndarray]:
    """Datasets [N], or [N, K] of a multi-label model, all alike."""
    dimensions = file.guard.plain_dataset(group, "label").ndim
    fields = {name: schema.sample_field(dtype, dimensions) for name, dtype in dtypes.items()}
    return {name: file.guard.dataset(group, name, fields[name], sizes)[()] for name in dtypes}


def _texts(file: OpenFile, owner: tuple[str, ...], name: str, count: int | None) -> np.ndarray:
    found = file.guard.plain_dataset(file.group(*owner), name)
    if found.ndim != 1 or count not in (None, len(found)) or found.dtype.kind != "S":
        raise file.guard.fail(f"{found.name} does not name {count or 'anything'}")
    return np.array([text.decode("utf-8", "replace") for text in found[()]], object)


def _columns(file: OpenFile, count: int) -> dict[str, np.ndarray]:
    guard, path = file.guard, ("run", "columns")
    group, columns = file.group(*path), {}
    for child in guard.names(group):
        if child == "sample":
            continue  # the rows, for viewers
        found = guard.plain_dataset(group, child)
        name = guard.attribute(found, "name")
        if not isinstance(name, str) or schema.column_child(name) != child:
            raise guard.fail(f"{found.name} does not hold the column {name!r}")
        if found.dtype.kind == "S":
            columns[name] = _texts(file, path, child, count)
        else:
            dtype = found.dtype.str if found.dtype.str in schema.COLUMN_DTYPES else "<f8"
            field = Field(dtype, ("sample",))
            columns[name] = guard.dataset(group, child, field, {"sample": count})[()]
    return columns


class Thumbnails(Mapping[int, np.ndarray]):
    """The reduced picture [h, w, 3] uint8 of samples with a hit or maps, read one at a time."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        guard, group = file.guard, file.group("run", "thumbnails")
        sizes = {"side": 2, "color": 3}
        self._pictures = guard.dataset(group, "picture", schema.THUMBNAILS["picture"], sizes)
        samples = guard.dataset(group, "sample", schema.THUMBNAILS["sample"], sizes)[()]
        self._size = guard.dataset(group, "size", schema.THUMBNAILS["size"], sizes)[()]
        self._rows = {sample: row for row, sample in enumerate(samples.tolist())}

    def __getitem__(self, sample: int) -> np.ndarray:
        row = self._rows[sample]
        height, width = self._size[row].tolist()
        self._file.root  # noqa: B018 - raises when it was closed
        with self._file.reading():
            return self._pictures[row, :height, :width]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
