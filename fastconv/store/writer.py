"""The final file of a run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastconv.records import LayerResult, SampleTable
from fastconv.store.atomic import NewFiles, reserve
from fastconv.store.codec import Compressor
from fastconv.store.layers import write_layer
from fastconv.store.maps import MapsPlace
from fastconv.store.nexus import finish, put, put_text, set_attribute
from fastconv.store.schema import Field, escape, to_json


def write_run(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    layers: Iterable[LayerResult],
    *,
    samples: SampleTable | None = None,
    overwrite: bool = False,
    times: Mapping[str, str] | None = None,
) -> Path:
    """Write a finished run.

    The file appears under its name only when it is whole and on the disk; after an error nothing
    is left of it. Layers are taken one at a time, so that memory holds one of them.

    Args:
        path: the file; its folder must exist.
        config: what made the run (options, versions, hashes); kept as JSON with sorted keys.
        layers: in forward order.
        samples: keys and labels of the data set.
        overwrite: replace an existing file.
        times: `start_time` and `end_time` as ISO 8601 text; kept as attributes only, so that two
            runs of the same work have equal datasets.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    path = Path(path)
    times = dict(times or {})
    text = to_json(dict(config))
    with (
        NewFiles(path, overwrite=overwrite) as files,
        Compressor() as compressor,
        files.create(path) as file,
    ):
        reserve(file)
        run = file.create_group("run")
        set_attribute(run, "NX_class", "NXentry")
        set_attribute(run, "title", f"fastconv: {path.name}")
        set_attribute(run, "program_name", "fastconv")
        for name in ("start_time", "end_time"):
            if name in times:
                set_attribute(run, name, times[name])
        put_text(run, "config_json", text)
        if samples is not None:
            _write_samples(run, samples, compressor)
        maps = MapsPlace(files, hashlib.sha256(text.encode()).hexdigest(), compressor)
        group = run.create_group("layers", track_order=True)
        set_attribute(group, "NX_class", "NXcollection")
        for result in layers:
            name = escape(result.info.name)
            layer = group.create_group(name, track_order=True)
            shown = write_layer(layer, result, compressor)
            if result.maps is not None:
                inside = maps.write(layer, result.info, result.maps)
                shown = shown or inside
            compressor.drain()
            if shown is not None:
                set_attribute(layer, "default", shown)
                if "default" not in run.attrs:
                    set_attribute(run, "default", f"layers/{name}/{shown}")
        finish(file, times.get("end_time"))
    return path


def _write_samples(run: h5py.Group, samples: SampleTable, compressor: Compressor) -> None:
    group = run.create_group("samples")
    set_attribute(group, "NX_class", "NXcollection")
    group.attrs["count"] = np.int64(samples.count)
    dims = ("sample",)
    scale = put(group, "sample", np.arange(samples.count), Field("<i8", dims), compressor)
    scale.make_scale("sample")
    if samples.keys is not None:
        keys = [str(key).encode("utf-8", "replace") for key in samples.keys]
        width = max(1, max(map(len, keys), default=1))
        dtype = h5py.string_dtype("utf-8", width)
        put(group, "key", np.array(keys, dtype), Field(dtype, dims), compressor)
    if samples.labels is not None:
        put(group, "label", samples.labels, Field("<i8", dims), compressor)
    for name in ("key", "label"):
        if name in group:
            group[name].dims[0].attach_scale(scale)
    if len(samples.skipped):
        put(group, "skipped", np.asarray(samples.skipped), Field("<i8", ("skipped",)), compressor)
        group["skipped"].make_scale("skipped")
