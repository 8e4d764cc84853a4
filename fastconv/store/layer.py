"""One layer of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch

from fastconv.errors import FileFormatError, InputError
from fastconv.format.result import NORMALIZED_ON_READING, LayerInfo, LayerResult, Maps, Rows
from fastconv.ops.channel_normalize import MODES, channel_normalize
from fastconv.store import schema
from fastconv.store.guard import Guard, check_root, reading
from fastconv.store.quantiles import quantiles
from fastconv.store.schema import Field

_ROWS = 4096  # of per-sample summaries that are read at once


class Hits(NamedTuple):
    """The top-k of a layer, best first; empty slots hold NaN, -1, -1, 0, 0."""

    values: np.ndarray  # [C, k] float32
    sample: np.ndarray  # [C, k] int64
    position: np.ndarray  # [C, k, D] int64, in output positions
    box: np.ndarray  # [C, k, D_in, 2] int64, start and stop in input pixels
    status: np.ndarray  # [C, k] uint8, index into ("exact", "bound", "global")


class SampleSummaries(NamedTuple):
    """Per sample and filter, over all positions; NaN where no value is finite."""

    max: np.ndarray | None  # [N, C] float32
    mean: np.ndarray | None  # [N, C] float32


class Layer:
    """One layer of a `Run`; arrays are read when they are asked for.

    Everything raises `InputError` when the run did not keep it, and `FileFormatError` when the
    file is damaged.
    """

    def __init__(self, guard: Guard, group: h5py.Group) -> None:
        self._guard, self._group = guard, group
        self.info: LayerInfo = schema.info_from_json(guard.text(group, "info_json"))
        self.name = self.info.name

    def __repr__(self) -> str:
        return f"<fastconv.Layer {self.name}: {self.info.kind}, {self.info.channels} filters>"

    @property
    def holds(self) -> tuple[str, ...]:
        """What the run kept: of "weights", "stats", "topk", "patches", "histogram", ..."""
        with reading(self._guard.path):
            outside = ("activations",) if "maps_of" in self._group.attrs else ()
            names = self._guard.names(self._group)
            return tuple(name for name in names if name in _GROUPS) + outside

    @property
    def weight(self) -> np.ndarray | None:
        """[C_out, C_in/groups, *kernel] float32; None where the layer has no weight."""
        if "weights" not in self.holds:
            return None
        rank = len(self.info.kernel) if self.info.kernel is not None else len(self.info.size)
        return self._read("weights", {"weight": schema.weight_field(rank)})["weight"]

    @property
    def stats(self) -> Mapping[str, np.ndarray]:
        """Per filter, each [C], over the finite values of the whole data set.

        count, nonfinite, positive_count int64; mean, var (of the population), std float64; min,
        max float32; positive float64, the share of values above 0; dead bool, never above 0. Where
        count is 0 the others are NaN.
        """
        found = self._read("stats", schema.STATS)
        found["dead"] = found["dead"] != 0
        return found

    @property
    def quantile_error(self) -> float:
        """Relative error bound of `quantile`, for magnitudes from 2^-20 to 2^20.

        Smaller ones are off by 2^-20 at most; larger ones lie between 2^20 and the extremum.
        """
        return schema.QUANTILE_ERROR

    def quantile(self, q: float | list[float] | np.ndarray) -> np.ndarray:
        """[C, len(q)] float64: the value of rank ceil(q * count) of each filter.

        That is numpy's `inverted_cdf`; see `quantile_error`. NaN where a filter has no value.
        """
        counts, edges = self.histogram
        stats = self.stats
        return quantiles(counts, edges, stats["min"], stats["max"], np.atleast_1d(q))

    @property
    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts [C, bins] int64 and edges [bins + 1] float64, from -inf to +inf."""
        found = self._read("histogram", schema.HISTOGRAM)
        if found["edges"].shape[0] != found["counts"].shape[1] + 1:
            raise self._guard.fail(f"{self._group.name}/histogram: the edges do not fit the bins")
        return found["counts"], found["edges"]

    @property
    def topk(self) -> Hits:
        """The strongest hits of every filter."""
        found = self._read("topk", schema.TOPK)
        return Hits(found["value"], *(found[n] for n in ("sample", "position", "box", "status")))

    @property
    def patches(self) -> h5py.Dataset:
        """All patches, unread: [C, k, h, w, 3] uint8, or [C, k, C_in, *size] float32."""
        with reading(self._guard.path):
            group = self._held("patches", self._guard, self._group)
            images = self._guard.plain_dataset(group, "patch").dtype == np.uint8
            field = schema.patch_field(images, len(self.info.fields))
            return self._guard.dataset(group, "patch", field, {"filter": self.info.channels})

    def patch(self, filter: int, rank: int = 0) -> np.ndarray:
        """What the filter saw at its hit of this rank: [h, w, 3] uint8, or [C_in, *size] float32.

        Where the box reaches past the input it is zero.
        """
        patches = self.patches
        for name, index, size in (
            ("filter", filter, patches.shape[0]),
            ("rank", rank, patches.shape[1]),
        ):
            if not 0 <= index < size:
                raise InputError(f"{name} must be 0 to {size - 1} in {self.name}, got {index}")
        with reading(self._guard.path):
            return patches[filter, rank]

    @property
    def overview(self) -> np.ndarray:
        """The montage [H, W, 3] uint8: filters with their strongest patches."""
        return self._read("overview", schema.OVERVIEW)["montage"]

    @property
    def samples(self) -> SampleSummaries:
        """Maximum and mean of every sample and filter."""
        found = self._read("samples", schema.SAMPLES, partial=True)
        return SampleSummaries(found.get("max"), found.get("mean"))

    def maps(self) -> Maps:
        """All maps as they are stored; they are read when their blocks are asked for."""
        with self._maps() as (guard, found):
            keepbits = guard.attribute(found["activation"].parent, "keepbits")
            storage = guard.attribute(found["activation"].parent, "storage")
            if not isinstance(keepbits, int):
                raise guard.fail(f"{self.name}: it does not say how exact its maps are")
            return Maps(
                str(storage),
                keepbits,
                found["sample"][()],
                self._map_rows("activation", found),
                self._map_rows("scale", found) if "scale" in found else None,
                self._map_rows("offset", found) if "offset" in found else None,
                _normalization(guard, found),
            )

    def _map_rows(self, name: str, found: Mapping[str, h5py.Dataset]) -> Rows:
        def blocks() -> Iterator[h5py.Dataset]:
            with self._maps() as (_, again):
                yield again[name]

        return Rows(found[name].shape, blocks())

    @property
    def map_samples(self) -> np.ndarray:
        """[n] int64: the samples whose maps were kept."""
        with self._maps() as (_, found):
            return found["sample"][()]

    def map(self, sample: int) -> np.ndarray:
        """[C, *spatial] float32: the activation of one sample, as exact as `maps_dtype` asked for.

        Normalised as `normalize` asked for; by the statistics of this run where it needs any.
        """
        with self._maps() as (guard, found):
            mode = _normalization(guard, found)
            rows = np.flatnonzero(found.pop("sample")[()] == sample)
            if not rows.size:
                raise InputError(f"no map of sample {sample} was kept for {self.name}")
            part = {name: dataset[int(rows[0])] for name, dataset in found.items()}
        values = part["activation"].astype(np.float32, copy=False)
        if "scale" in part:
            spread = (...,) + (None,) * (values.ndim - 1)
            values = values * part["scale"][spread] + part["offset"][spread]
        if mode not in NORMALIZED_ON_READING:
            return values
        names = {"zscore": ("mean", "var"), "minmax": ("min", "max")}[mode]
        stats: Any = {name: torch.from_numpy(self.stats[name]) for name in names}
        return channel_normalize(torch.from_numpy(values)[None], mode, **stats)[0].numpy()

    def result(self) -> LayerResult:
        """Everything again as it was measured, so that runs can be merged."""
        holds, raw = self.holds, {}
        if "stats" in holds:
            stats = self.stats
            empty = stats["count"] == 0
            raw = self._read("merge", schema.MERGE)
            raw |= {name: stats[name] for name in ("count", "nonfinite")}
            raw["positive"] = stats["positive_count"]
            raw["min"] = np.where(empty, np.float32(np.inf), stats["min"])
            raw["max"] = np.where(empty, np.float32(-np.inf), stats["max"])
        return LayerResult(
            self.info,
            self.weight,
            raw,
            self.histogram[0] if "histogram" in holds else None,
            self._read("topk", schema.TOPK) if "topk" in holds else {},
            self.patches if "patches" in holds else None,
            self._sample_rows("max"),
            self._sample_rows("mean"),
            self.maps() if "activations" in holds else None,
        )

    def _sample_rows(self, name: str) -> Rows | None:
        if "samples" not in self.holds or name not in self._group["samples"]:
            return None
        with reading(self._guard.path):
            group, sizes = self._guard.group(self._group, "samples"), {"filter": self.info.channels}
            rows = self._guard.dataset(group, name, schema.SAMPLES[name], sizes)
        return Rows(rows.shape, (rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS)))

    @contextmanager
    def _maps(self) -> Iterator[tuple[Guard, dict[str, h5py.Dataset]]]:
        """The datasets of the maps, checked, in whichever file they are."""
        with self.maps_file() as (guard, layer, _), reading(guard.path):
            group = self._held("activations", guard, layer)
            storage = guard.attribute(group, "storage")
            if storage not in schema.MAP_DTYPES:
                raise guard.fail(f"{group.name} keeps its maps as {storage!r}")
            fields = schema.map_fields(str(storage), len(self.info.size))
            sizes = {"filter": self.info.channels}
            yield guard, {n: guard.dataset(group, n, f, sizes) for n, f in fields.items()}

    @contextmanager
    def maps_file(self) -> Iterator[tuple[Guard, h5py.Group, h5py.File | None]]:
        """The group of this layer that holds its maps, and the file when that is another one."""
        with reading(self._guard.path):
            identity = self._guard.attribute(self._group, "maps_of")
        if identity is None:
            yield self._guard, self._group, None
            return
        path = schema.maps_path(self._guard.path, self.name)
        guard = Guard(path)
        with reading(path), h5py.File(path, "r", locking=False) as file:
            check_root(guard, file)
            layer = file
            for name in ("run", "layers", schema.escape(self.name)):
                layer = guard.group(layer, name)
            if guard.attribute(layer, "maps_of") != identity:
                raise FileFormatError(f"{path} belongs to another run than {self._guard.path}")
            yield guard, layer, file

    def _held(self, name: str, guard: Guard, layer: h5py.Group) -> h5py.Group:
        if name not in layer:
            raise InputError(
                f"the run kept no {name} of {self.name}; extract it with {_GROUPS[name]}"
            )
        return guard.group(layer, name)

    def _read(
        self, name: str, fields: Mapping[str, Field], *, partial: bool = False
    ) -> dict[str, np.ndarray]:
        """All arrays of one group, checked against the schema before any is read."""
        sizes = {
            "filter": self.info.channels,
            "output_dimension": len(self.info.size),
            "input_dimension": len(self.info.fields),
            "side": 2,
            "color": 3,
        }
        with reading(self._guard.path):
            group = self._held(name, self._guard, self._group)
            wanted = {n: f for n, f in fields.items() if not partial or n in group}
            found = {n: self._guard.dataset(group, n, f, sizes) for n, f in wanted.items()}
            return {n: dataset[()] for n, dataset in found.items()}


def _normalization(guard: Guard, found: Mapping[str, h5py.Dataset]) -> str | None:
    mode = guard.attribute(found["activation"].parent, "normalize")
    if mode is not None and mode not in MODES:
        raise guard.fail(f"its maps are normalised by {mode!r}")
    return None if mode is None else str(mode)


_GROUPS = {
    "overview": "patches=True",
    "patches": "patches=True",
    "topk": "topk >= 1",
    "stats": "stats=True",
    "merge": "stats=True",
    "histogram": "quantiles=True",
    "weights": "a layer that has weights",
    "samples": "samples=True",
    "activations": "maps=...",
}
