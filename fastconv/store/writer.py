"""The final file of a run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from h5py import h5f, h5g, h5i

from fastconv.format.result import LayerInfo, LayerResult, SampleTable
from fastconv.store.atomic import META_BLOCK, NewFiles, reserve
from fastconv.store.codec import Compressor
from fastconv.store.low_level import new_group, put_text, set_attribute
from fastconv.store.nexus import Output, finish
from fastconv.store.schema import escape, infos_to_json, to_json
from fastconv.store.write_layer import write_layer
from fastconv.store.write_maps import MapsPlace
from fastconv.store.write_patches import PatchWriter
from fastconv.store.write_samples import write_samples

LAYER_META, MOST_META = 2**15, 2**22  # bytes of metadata of a layer, and of a block of them
GROUP_META = 2**13  # bytes that an empty group of a layer needs at most


def write_run(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    layers: Iterable[LayerResult],
    *,
    samples: SampleTable | None = None,
    graph: Iterable[tuple[str, str]] = (),
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
        samples: keys, labels, outcomes and columns of the data set.
        graph: edges of the network, (from, to) by names of layers.
        overwrite: replace an existing file.
        times: `start_time` and `end_time` as ISO 8601 text; kept as attributes only, so that two
            runs of the same work have equal datasets.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    path = Path(path)
    times = dict(times or {})
    text = to_json(dict(config))
    names = dict.fromkeys(map(escape, config.get("fingerprint", {}).get("layers", ())))
    meta_block = min(max(META_BLOCK, len(names) * LAYER_META), MOST_META)
    with (
        NewFiles(path, overwrite=overwrite) as files,
        Compressor() as compressor,
        files.create(path, meta_block) as file,
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
        output = Output(compressor)
        if samples is not None:
            write_samples(run, samples, output)
        if edges := [list(edge) for edge in graph]:
            put_text(run, "graph_json", to_json(edges))
        maps = MapsPlace(files, hashlib.sha256(text.encode()).hexdigest(), output)
        group = _layer_groups(run, names)
        _write_layers(run, group, layers, output, maps)
        output.finish()
        compressor.drain()
        finish(file.id, times.get("end_time"))
    return path


def _layer_groups(run: h5g.GroupID, names: Collection[str]) -> h5g.GroupID:
    """The group of layers with empty ones for those that are known.

    Made at once, their names lie side by side, where a reader elsewhere gets them in one request.
    """
    file = h5i.get_file_id(run)
    reserve(file, len(names) * GROUP_META)
    group = new_group(run, "layers", ordered=True)
    set_attribute(group, "NX_class", "NXcollection")
    for name in names:
        new_group(group, name, ordered=True)
    h5f.flush(file)  # now the names get their place
    return group


def _write_layers(
    run: h5g.GroupID,
    group: h5g.GroupID,
    layers: Iterable[LayerResult],
    output: Output,
    maps: MapsPlace,
) -> None:
    """Write layer after layer, and what they share."""
    patches = PatchWriter(output)
    infos: list[LayerInfo] = []
    conditions: dict[str, None] = {}
    default = ""
    for result in layers:
        name = escape(result.info.name)
        known = name.encode() in group
        layer = h5g.open(group, name.encode()) if known else new_group(group, name, ordered=True)
        infos.append(result.info)
        conditions |= dict.fromkeys(result.conditions)
        shown = write_layer(layer, result, output, patches)
        if result.maps is not None:
            inside = maps.write(layer, result.info, result.maps)
            shown = shown or inside
        if shown is not None:
            set_attribute(layer, "default", shown)
            if not default:
                default = f"layers/{name}/{shown}"
                set_attribute(run, "default", default)
        output.compressor.write_back(h5i.get_file_id(run))
    patches.finish(run)
    put_text(run, "layers_json", infos_to_json(infos))
    if conditions:
        put_text(run, "conditions_json", to_json(list(conditions)))
