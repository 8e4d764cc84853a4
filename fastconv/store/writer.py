"""The final file of a run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from h5py import h5ds, h5g

from fastconv.format.result import LayerResult, SampleTable
from fastconv.store.atomic import NewFiles, reserve
from fastconv.store.codec import Compressor
from fastconv.store.layers import write_layer
from fastconv.store.maps import MapsPlace
from fastconv.store.nexus import finish, make_scale, put
from fastconv.store.objects import new_group, put_text, set_attribute, text_array
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
        reserve(file.id)
        run = new_group(file.id, "run")
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
        group, default = new_group(run, "layers", ordered=True), ""
        set_attribute(group, "NX_class", "NXcollection")
        for result in layers:
            name = escape(result.info.name)
            layer = new_group(group, name, ordered=True)
            shown = write_layer(layer, result, compressor)
            if result.maps is not None:
                inside = maps.write(layer, result.info, result.maps)
                shown = shown or inside
            if shown is not None:
                set_attribute(layer, "default", shown)
                if not default:
                    default = f"layers/{name}/{shown}"
                    set_attribute(run, "default", default)
        compressor.drain()
        finish(file.id, times.get("end_time"))
    return path


def _write_samples(run: h5g.GroupID, samples: SampleTable, compressor: Compressor) -> None:
    group = new_group(run, "samples")
    set_attribute(group, "NX_class", "NXcollection")
    set_attribute(group, "count", np.int64(samples.count))
    dims = ("sample",)
    scale = put(group, "sample", np.arange(samples.count), Field("<i8", dims), compressor)
    make_scale(scale, "sample")
    if samples.keys is not None:
        keys = text_array(samples.keys)
        made = put(group, "key", keys, Field(keys.dtype, dims), compressor)
        h5ds.attach_scale(made, scale, 0)
    if samples.labels is not None:
        made = put(group, "label", samples.labels, Field("<i8", dims), compressor)
        h5ds.attach_scale(made, scale, 0)
    if len(samples.skipped):
        made = put(
            group, "skipped", np.asarray(samples.skipped), Field("<i8", ("skipped",)), compressor
        )
        make_scale(made, "skipped")
