"""The pictures of hits in a file: once each, or as the parts of the inputs that they show.

Deep layers show large parts of few inputs, over and over: then it takes less to keep those inputs,
reduced as the pictures are and filled in where pictures show them, than to keep the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from h5py import h5g, h5i

from fastconv.format.patch_plan import PatchPlan, channels_first, framed, window
from fastconv.format.result import HIT_SETS, LayerResult
from fastconv.ops.paste_patches import paste_patches
from fastconv.store import schema
from fastconv.store.atomic import reserve
from fastconv.store.distinct import DistinctHits, distinct_hits
from fastconv.store.low_level import new_group, set_attribute
from fastconv.store.nexus import Output, data_group
from fastconv.store.schema import Field, Plot

BUDGET = 2**28  # bytes of reduced inputs that are held until the file is complete
PROBES = 64  # pictures of a layer that are compared with what will be read
CHUNK = 2**15  # bytes: a reader that wants one filter reads few pictures beside it


class ReducedInputs:
    """The inputs of one condition, reduced by one factor, as far as pictures have shown them."""

    def __init__(self, plan: PatchPlan, like: np.ndarray) -> None:
        """Take a plan and some pictures [m, ...] of it."""
        self._extent, self._images = plan.extent, like.dtype == np.uint8
        shape = (*plan.extent, 3) if self._images else (like.shape[1], *plan.extent)
        self._pictures = np.zeros((0, *shape), like.dtype)
        self._known = np.zeros((0, *plan.extent), bool)  # points that pictures have shown
        self._rows: dict[int, int] = {}  # of samples
        self._spent = 0  # bytes of pictures that were kept by themselves
        self.outside: np.ndarray | None = None  # [channels]: what pictures show beyond the inputs

    @property
    def nbytes(self) -> int:
        return self.pictures.nbytes

    @property
    def pictures(self) -> np.ndarray:
        """[S, ...] in the order of `samples`."""
        return self._pictures[: len(self._rows)]

    @property
    def samples(self) -> np.ndarray:
        return np.fromiter(self._rows, np.int64, len(self._rows))

    def rows(self, samples: np.ndarray) -> np.ndarray:
        """The rows [m] of samples [m] that were taken."""
        distinct, which = np.unique(samples, return_inverse=True)
        return np.array([self._rows[sample] for sample in distinct.tolist()], np.int32)[which]

    def pays(self, hits: DistinctHits, nbytes: int, room: int) -> bool:
        """Whether to take these pictures in: when what they took by themselves is as much.

        Pictures are kept by themselves until they have taken as many bytes as the inputs would, so
        that the file is never twice as large as it could be.
        """
        missing = len(set(np.unique(hits.sample).tolist()) - self._rows.keys())
        cost = missing * self._pictures.itemsize * math.prod(self._pictures.shape[1:])
        if cost > room or self._spent + nbytes < cost:
            self._spent += nbytes
            return False
        return True

    def take(self, hits: DistinctHits, pictures: np.ndarray, size: Sequence[int]) -> bool:
        """Fill in what these pictures show; false where that is not what others show there."""
        distinct, first = np.unique(hits.sample, return_index=True)
        for sample in distinct[np.argsort(first)].tolist():
            self._rows.setdefault(sample, len(self._rows))
        if len(self._rows) > len(self._pictures):
            self._pictures = _longer(self._pictures, 2 * len(self._rows))
            self._known = _longer(self._known, 2 * len(self._rows))
        inputs = channels_first(self._pictures, images=self._images)
        shown = channels_first(pictures, images=self._images)
        rows = self.rows(hits.sample)
        paste_patches(
            torch.from_numpy(shown),
            torch.from_numpy(rows.astype(np.int64)),
            torch.from_numpy(hits.start),
            torch.from_numpy(inputs),
            torch.from_numpy(self._known),
        )
        beyond = ((hits.start < 0) | (hits.start + size > self._extent)).any(axis=1)
        if self.outside is None and beyond.any():
            at = int(beyond.argmax())
            point = np.ones(size, bool)
            point[window(hits.start[at], size, self._extent)[0]] = False
            self.outside = shown[at][:, point][:, 0]
        probes = np.unique(np.linspace(0, len(shown) - 1, PROBES).round().astype(int))
        for i in probes.tolist():
            inside, there = window(hits.start[i], size, self._extent)
            seen = inputs[rows[i]][(slice(None), *there)]
            if framed(seen, inside, size, self.outside).tobytes() != shown[i].tobytes():
                return False
        return True


def _longer(values: np.ndarray, rows: int) -> np.ndarray:
    longer = np.zeros((rows, *values.shape[1:]), values.dtype)
    longer[: len(values)] = values
    return longer


class PatchWriter:
    """Writes the pictures of one layer after the other, and at the end the inputs they share."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._inputs: dict[str, ReducedInputs] = {}
        self._names: dict[tuple[object, ...], str] = {}

    def write(
        self, layer: h5g.GroupID, result: LayerResult, name: str, condition: str | None
    ) -> None:
        """Write the pictures of the hits `name` of a layer into its group."""
        plan, kept = result.patch_plan, getattr(result, HIT_SETS[name])
        hits = distinct_hits(getattr(result, name), plan)
        pictures = np.asarray(kept[hits.filter, hits.rank])
        row, shared, images = hits.row, None, pictures.dtype == np.uint8
        if plan is not None and len(pictures):
            channels = 3 if images else pictures.shape[1]
            key = (plan.factor, plan.extent, images, channels, condition)
            owner = self._names.setdefault(key, str(len(self._names)))
            inputs = self._inputs.setdefault(owner, ReducedInputs(plan, pictures))
            room = BUDGET - sum(held.nbytes for held in self._inputs.values())
            if inputs.pays(hits, pictures.nbytes, room) and inputs.take(hits, pictures, plan.size):
                shared = owner
                of_picture = np.append(inputs.rows(hits.sample), np.int32(-1))
                row = of_picture[row]  # the last one: of none
        values: dict[str, Any] = {"row": row}
        if shared is None:
            values["picture"] = pictures
        made = self._group(layer, HIT_SETS[name], len(result.info.fields), values, images=images)
        if plan is not None:
            set_attribute(made, "plan", schema.plan_to_json(plan))
        if shared is not None:
            set_attribute(made, "pictures", shared)

    def finish(self, run: h5g.GroupID) -> None:
        """Write the inputs that layers share, as `/run/pictures/<name>`."""
        used = {name: inputs for name, inputs in self._inputs.items() if len(inputs.samples)}
        if not used:
            return
        group = new_group(run, "pictures")
        set_attribute(group, "NX_class", "NXcollection")
        for name, inputs in used.items():
            reserve(h5i.get_file_id(run))
            values = {"picture": inputs.pictures, "sample": inputs.samples}
            images = inputs.pictures.dtype == np.uint8
            made = self._group(group, name, inputs.pictures.ndim - 2, values, images=images)
            if inputs.outside is not None:
                set_attribute(made, "outside", schema.to_json(inputs.outside.tolist()))

    def _group(
        self,
        parent: h5g.GroupID,
        name: str,
        rank: int,
        values: dict[str, Any],
        *,
        images: bool,
    ) -> h5g.GroupID:
        field = schema.picture_field(images, rank)
        sample = Field("<i8", ("picture_number",))
        fields = {"row": schema.PATCH_ROW, "picture": field, "sample": sample}
        plot, rows = None, None
        if "picture" in values:
            plot = picture_plot(field, rank, images=images)
            if images:  # y runs downwards, which h5web and silx both draw upright
                rows = {"y": np.arange(values["picture"].shape[1], dtype="<i4")[::-1].copy()}
        return data_group(
            parent, name, fields, values, plot, self._output, coordinates=rows, chunk_bytes=CHUNK
        )


def picture_plot(field: Field, rank: int, *, images: bool) -> Plot:
    if not images:
        return array_plot("picture", field.dims, rank)
    return Plot(
        "picture",
        (*field.dims[:-1], "."),
        interpretation="rgb-image",
        default_slice=("0", ".", ".", "."),
    )


def array_plot(signal: str, dims: tuple[str, ...], rank: int) -> Plot:
    """Show the last dimensions as a line or a picture, at the start of the others."""
    shown = min(2, rank)
    if not shown:
        return Plot(signal, dims)
    return Plot(
        signal,
        dims,
        interpretation=("spectrum", "image")[shown - 1],
        default_slice=("0",) * (len(dims) - shown) + (".",) * shown,
    )
