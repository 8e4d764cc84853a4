"""Writing the table of samples: keys, labels, outcomes, columns, classes, thumbnails."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from h5py import h5d, h5g, h5i

from fastconv.errors import InputError
from fastconv.format.result import SampleTable
from fastconv.store import schema
from fastconv.store.atomic import reserve
from fastconv.store.low_level import set_attribute, text_array
from fastconv.store.nexus import Output, data_group, put
from fastconv.store.schema import Field
from fastconv.store.write_patches import picture_plot

CHUNK = 2**15  # bytes: thumbnails are read one at a time


def write_samples(run: h5g.GroupID, samples: SampleTable, output: Output) -> None:
    """Write the groups of `/run` that describe samples.

    Raises:
        InputError: an outcome or a column that does not have one value a sample.
    """
    values: dict[str, np.ndarray] = {}
    if samples.keys is not None:
        values["key"] = text_array(samples.keys)
    if samples.labels is not None:
        values["label"] = np.asarray(samples.labels, "<i8")
    group = _write_table(run, "samples", values, samples, output)
    set_attribute(group, "count", np.int64(samples.count))
    if len(samples.skipped):
        output.scale(group, "skipped", np.asarray(samples.skipped, "<i8"))
    if samples.outcomes:
        outcomes = {
            name: np.asarray(samples.outcomes[name], dtype)
            for name, dtype in schema.OUTCOMES.items()
        }
        _write_table(run, "outcomes", outcomes, samples, output)
    if samples.columns:
        columns = {schema.column_child(n): _column(v) for n, v in samples.columns.items()}
        group = _write_table(run, "columns", columns, samples, output)
        for name in samples.columns:
            set_attribute(h5d.open(group, schema.column_child(name).encode()), "name", name)
    if samples.classes is not None:
        names = text_array(list(samples.classes))
        put(run, "classes", names, Field(names.dtype, ("class",)), output)
    if samples.thumbnails:
        _write_thumbnails(run, samples.thumbnails, output)


def _write_table(
    run: h5g.GroupID,
    name: str,
    columns: Mapping[str, np.ndarray],
    samples: SampleTable,
    output: Output,
) -> h5g.GroupID:
    for column, values in columns.items():
        several = columns["label"].shape[1:2] if name == "outcomes" or column == "label" else ()
        if values.shape != (samples.count, *several):  # the labels of a multi-label model
            raise InputError(
                f"{name}/{column} must have one value for each of {samples.count} samples, got an "
                f"array of shape {list(values.shape)}"
            )
    reserve(h5i.get_file_id(run), sum(v.nbytes for v in columns.values()))
    fields = {name: schema.sample_field(v.dtype, v.ndim) for name, v in columns.items()}
    return data_group(run, name, fields, columns, None, output)


def _column(values: object) -> np.ndarray:
    """Integers and floats as 8 bytes, everything else as text."""
    array = np.asarray(values)
    if array.dtype.kind in "iub":
        return array.astype("<i8")
    if array.dtype.kind == "f":
        return array.astype("<f8")
    return text_array([str(value) for value in array.tolist()])


def _write_thumbnails(
    run: h5g.GroupID, thumbnails: Mapping[int, np.ndarray], output: Output
) -> None:
    reserve(h5i.get_file_id(run))
    order = np.array(sorted(thumbnails), "<i8")
    given = [np.asarray(thumbnails[sample]) for sample in order.tolist()]
    size = np.array([picture.shape[:2] for picture in given], "<i4")
    pictures = np.zeros((len(order), *size.max(0), 3), np.uint8)
    for room, picture in zip(pictures, given, strict=True):
        room[: picture.shape[0], : picture.shape[1]] = picture
    fields = schema.THUMBNAILS
    values = {"picture": pictures, "sample": order, "size": size}
    rows = {"y": np.arange(pictures.shape[1], dtype="<i4")[::-1].copy()}
    plot = picture_plot(fields["picture"], 2, images=True)
    data_group(run, "thumbnails", fields, values, plot, output, coordinates=rows, chunk_bytes=CHUNK)
