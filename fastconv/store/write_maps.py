"""Writing activation maps: into the run's file while they are small, else into files beside it."""

from __future__ import annotations

import numpy as np
from h5py import h5g, h5i

from fastconv.format.result import NORMALIZED_ON_READING, LayerInfo, Maps
from fastconv.store import schema
from fastconv.store.atomic import NewFiles, reserve
from fastconv.store.codec import MAP_ROWS
from fastconv.store.low_level import new_group, set_attribute
from fastconv.store.nexus import Output, data_group, finish
from fastconv.store.write_patches import array_plot

INSIDE = 2**30  # bytes of maps, uncompressed, that the run's own file takes


class MapsPlace:
    """Writes the maps of one layer after the other, outside once they are too many."""

    def __init__(self, files: NewFiles, identity: str, output: Output) -> None:
        self._files, self._identity, self._output = files, identity, output
        self._bytes = 0

    def write(self, layer: h5g.GroupID, info: LayerInfo, maps: Maps) -> str | None:
        """Write them into the group of the layer, and return the name there, or beside."""
        itemsize = np.dtype(schema.MAP_DTYPES[maps.storage]).itemsize
        self._bytes += int(np.prod(maps.activation.shape)) * itemsize
        if self._bytes <= INSIDE:
            self._write(layer, info, maps, self._output)
            return "activations"
        set_attribute(layer, "maps_of", self._identity)
        with self._files.create(schema.maps_path(self._files.path, info.name)) as file:
            reserve(file.id)
            run, name = new_group(file.id, "run"), schema.escape(info.name)
            set_attribute(run, "NX_class", "NXentry")
            set_attribute(run, "default", f"layers/{name}/activations")
            group = new_group(new_group(run, "layers"), name)
            for key, value in schema.attributes_of(info).items():
                set_attribute(group, key, value)
            set_attribute(group, "maps_of", self._identity)
            output = Output(self._output.compressor)
            self._write(group, info, maps, output)
            output.finish()
            finish(file.id, None)
        return None

    def _write(self, group: h5g.GroupID, info: LayerInfo, maps: Maps, output: Output) -> None:
        reserve(h5i.get_file_id(group))
        rank = len(info.size)
        fields = schema.map_fields(maps.storage, rank)
        values = {"activation": maps.activation, "sample": maps.samples}
        if maps.storage == "uint8":
            values |= {"scale": maps.scale, "offset": maps.offset}
        plot = array_plot("activation", fields["activation"].dims, rank)
        made = data_group(group, "activations", fields, values, plot, output, chunk_rows=MAP_ROWS)
        set_attribute(made, "storage", maps.storage)
        set_attribute(made, "keepbits", np.int64(maps.keepbits))
        if maps.normalize is not None:
            on_reading = maps.normalize in NORMALIZED_ON_READING
            set_attribute(made, "normalize", maps.normalize)
            set_attribute(made, "normalized_on", "reading" if on_reading else "writing")
        output.compressor.drain()
