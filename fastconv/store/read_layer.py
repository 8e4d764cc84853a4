"""One layer of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.errors import InputError
from fastconv.format.patch_plan import PatchPlan
from fastconv.format.quantiles import quantiles
from fastconv.format.result import HIT_SETS, LayerInfo, LayerResult, Maps, Rows
from fastconv.store import schema
from fastconv.store.filter import Filter
from fastconv.store.open_file import OpenFile
from fastconv.store.read_group import KEPT_BY, ArrayGroup
from fastconv.store.read_hits import Hits
from fastconv.store.read_maps import StoredMaps
from fastconv.store.read_patches import Patches, open_patches

_ROWS = 4096  # of per-sample summaries that are read at once


class Stats(Mapping[str, np.ndarray]):
    """Statistics by name, each [C] and read when it is first asked for; see `Layer.stats`."""

    def __init__(self, arrays: ArrayGroup) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> np.ndarray:
        self._arrays.fetch()
        return self._arrays["positive_count"] == 0 if name == "dead" else self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        yield from (*self._arrays, "dead")

    def __len__(self) -> int:
        return len(self._arrays) + 1

    def __repr__(self) -> str:
        return f"<statistics {', '.join(self)}>"


class SampleSummaries:
    """Maximum and mean of every sample and filter over all positions, read when asked for.

    NaN where a sample has no finite value, and for skipped samples.
    """

    def __init__(self, arrays: ArrayGroup) -> None:
        self._arrays = arrays

    @property
    def max(self) -> np.ndarray | None:
        """[N, C] float32."""
        return self._arrays.held("max")

    @property
    def mean(self) -> np.ndarray | None:
        """[N, C] float32."""
        return self._arrays.held("mean")

    def rows(self, start: int, stop: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Maximum and mean [stop - start, C] of consecutive samples; nothing else is read."""
        found = [
            self._read(name, start, stop) if name in self._arrays else None
            for name in ("max", "mean")
        ]
        return found[0], found[1]

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        dataset = self._arrays.dataset(name)
        with self._arrays.file.reading():
            return dataset[start:stop]

    def blocks(self, name: str) -> Rows | None:
        """All rows of `max` or `mean`, a few thousand at a time."""
        if name not in self._arrays:
            return None
        shape = self._arrays.dataset(name).shape
        return Rows(
            shape,
            (self._read(name, i, min(i + _ROWS, shape[0])) for i in range(0, shape[0], _ROWS)),
        )


class Layer:
    """One layer of a `Run`, or what the run holds of it under one condition.

    Arrays are read when they are first asked for, kept, and cannot be written to. C is the number
    of filters, k that of hits per filter, N that of samples, D that of spatial dimensions.

    Attributes:
        name: name of the layer; "relu#1" for the second call of `relu` in one forward.
        info: what is known of it: geometry, stage, size of its output.
        under: name of the condition under which it was measured, or None.

    Raises:
        InputError: the run did not keep what is asked for, or it is closed.
        FileFormatError: the file is damaged.

    Example:
        >>> import fastconv
        >>> with fastconv.open(example) as run:
        ...     layer = run["conv1"]
        ...     mean, top = layer.stats["mean"], layer.topk
        ...     picture = layer.patch(filter=2, rank=0)
        >>> mean.shape, top.values.shape, picture.shape
        ((6,), (6, 4), (3, 3, 3))
    """

    def __init__(
        self, file: OpenFile, info: LayerInfo, path: tuple[str, ...], under: str | None = None
    ) -> None:
        self._file, self._path = file, path
        self.info, self.name, self.under = info, info.name, under

    def __repr__(self) -> str:
        under = "" if self.under is None else f" under {self.under}"
        return (
            f"<fastconv.Layer {self.name}{under}: {self.info.kind}, {self.info.channels} filters>"
        )

    @cached_property
    def holds(self) -> tuple[str, ...]:
        """Names of the groups that the run kept: of "weights", "stats", "topk", "patches", ..."""
        layer = self._file.group(*self._path)
        with self._file.reading():
            outside = ("activations",) if "maps_of" in layer.attrs else ()
            return tuple(n for n in self._file.guard.names(layer) if n in KEPT_BY) + outside

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions under which the layer was measured as well."""
        path = (*self._path, "conditions")
        if not self._file.has(*path):
            return ()
        with self._file.reading():
            guard, group = self._file.guard, self._file.group(*path)
            names = {
                child: guard.attribute(self._file.group(*path, child), "name")
                for child in guard.names(group)
            }
            for child, name in names.items():
                if not isinstance(name, str) or schema.escape(name) != child:
                    raise guard.fail(f"{group.name}/{child} does not hold the condition {name!r}")
            return tuple(map(str, names.values()))

    def condition(self, name: str) -> Layer:
        """The layer as it was measured under one of `Run.conditions`; it has no weight.

        Raises:
            InputError: the layer was not measured under it.
        """
        if name not in self.conditions:
            have = ", ".join(self.conditions) or "none"
            raise InputError(
                f"{self.name} was not measured under {name!r} in {self._file.place}, which has "
                f"{have}; extract it with conditions={{{name!r}: ...}}"
            )
        path = (*self._path, "conditions", schema.escape(name))
        return Layer(self._file, self.info, path, under=name)

    @property
    def weight(self) -> np.ndarray | None:
        """[C_out, C_in/groups, *kernel] float32; None where the layer has no weight."""
        return self._weights["weight"] if "weights" in self.holds else None

    def weight_of(self, filter: int) -> np.ndarray | None:
        """[C_in/groups, *kernel] float32 of one filter; no other is read."""
        self._require("filter", filter, len(self))
        return self._weights.row("weight", filter) if "weights" in self.holds else None

    @property
    def stats(self) -> Mapping[str, np.ndarray]:
        """Per filter, each [C], over the finite values of the whole data set.

        count, nonfinite, positive_count int64; mean, var (of the population), std float64; min,
        max float32; positive float64, the share of values above 0; dead bool, never above 0. Where
        count is 0 the others are NaN.
        """
        self._stats.group  # noqa: B018 - raises when they were not kept
        return Stats(self._stats)

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
        counts, edges = self._histogram["counts"], self._histogram["edges"]
        if edges.shape[0] != counts.shape[1] + 1:
            name = self._histogram.group.name
            raise self._file.guard.fail(f"{name}: the edges do not fit the bins")
        return counts, edges

    @property
    def topk(self) -> Hits:
        """The strongest hits of every filter, best first; of `order="smallest"` the weakest."""
        return self._hits("topk")

    @property
    def bottomk(self) -> Hits:
        """The weakest hits of every filter, the smallest value first.

        Kept by `order="both"` beside `topk`; of a run with `order="smallest"` they are its `topk`.
        """
        return self._hits(self._bottomk)

    @property
    def patches(self) -> Patches:
        """Pictures of `topk`: [C, k, h, w, 3] uint8, or [C, k, C_in, *size] float32.

        They are read where they are indexed.
        """
        return self._pictures("topk")[0]

    @property
    def bottomk_patches(self) -> Patches:
        """Pictures of `bottomk`, as `patches` are of `topk`."""
        return self._pictures(self._bottomk)[0]

    def patch(self, filter: int, rank: int = 0, *, bottom: bool = False) -> np.ndarray:
        """The input at the hit of this rank: [h, w, 3] uint8, or [C_in, *size] float32.

        Where the box reaches past the input it is zero. Large boxes are shown reduced.

        Args:
            filter: number of the filter.
            rank: place of the hit among those of the filter, 0 for the first.
            bottom: whether of `bottomk`, the weakest, and not of `topk`.
        """
        patches = self.bottomk_patches if bottom else self.patches
        self._require("filter", filter, patches.shape[0])
        self._require("rank", rank, patches.shape[1])
        return patches[filter, rank]

    @property
    def overview(self) -> np.ndarray:
        """The montage [H, W, 3] uint8: filters with their strongest patches."""
        return self._overview["montage"]

    @cached_property
    def samples(self) -> SampleSummaries:
        """Maximum and mean of every sample and filter."""
        arrays = self._arrays("samples", schema.SAMPLES)
        arrays.group  # noqa: B018 - raises when they were not kept
        return SampleSummaries(arrays)

    @property
    def map_samples(self) -> np.ndarray:
        """[n] int64: the samples whose maps were kept."""
        return self.stored_maps.samples

    def map(self, sample: int, filter: int | None = None) -> np.ndarray:
        """The activation of one sample, [C, *spatial] float32, or of one filter, [*spatial].

        As exact as `maps_dtype` asked for, and normalised as `normalize` asked for; by the
        statistics of this run where it needs any.
        """
        if filter is not None:
            self._require("filter", filter, len(self))
        return self.stored_maps.one(sample, filter)

    def filter_maps(self, filter: int) -> Iterator[tuple[int, np.ndarray]]:
        """Every kept sample with the map [*spatial] float32 of one filter, a few read at a time."""
        self._require("filter", filter, len(self))
        return self.stored_maps.of_filter(filter)

    @cached_property
    def stored_maps(self) -> StoredMaps:
        """The maps as the file holds them; for merging and checking."""
        return StoredMaps(self._file, self._path, self.info, lambda: self.stats)

    def maps(self) -> Maps:
        """All maps as they are stored; they are read when their blocks are asked for."""
        return self.stored_maps.raw()

    def result(self) -> LayerResult:
        """Everything again as it was measured, in arrays of its own, so that runs can be merged."""
        holds, raw = self.holds, {}
        if "stats" in holds:
            stats, merge = self._stats, self._arrays("merge", schema.MERGE)
            empty = stats["count"] == 0
            raw = {name: merge[name].copy() for name in schema.MERGE}
            raw |= {name: stats[name].copy() for name in ("count", "nonfinite")}
            raw["positive"] = stats["positive_count"].copy()
            raw["min"] = np.where(empty, np.float32(np.inf), stats["min"])
            raw["max"] = np.where(empty, np.float32(-np.inf), stats["max"])
        result = LayerResult(
            self.info,
            self.weight,
            raw,
            self.histogram[0].copy() if "histogram" in holds else None,
            samples_max=self.samples.blocks("max") if "samples" in holds else None,
            samples_mean=self.samples.blocks("mean") if "samples" in holds else None,
            maps=self.maps() if "activations" in holds else None,
            conditions={name: self.condition(name).result() for name in self.conditions},
        )
        for name in (n for n in HIT_SETS if n in holds):
            arrays, pictures = self._hit_arrays[name], None
            if HIT_SETS[name] in holds:
                pictures, result.patch_plan = self._pictures(name)
            result.set_hits(name, {f: arrays[f].copy() for f in schema.TOPK}, pictures)
        return result

    def _require(self, name: str, index: int, size: int) -> None:
        if not 0 <= index < size:
            raise InputError(f"{name} must be 0 to {size - 1} in {self.name}, got {index}")

    def _arrays(self, name: str, fields: Mapping[str, schema.Field]) -> ArrayGroup:
        return ArrayGroup(self._file, (*self._path, name), fields, self.info)

    @cached_property
    def _stats(self) -> ArrayGroup:
        return self._arrays("stats", schema.STATS)

    @cached_property
    def _hit_arrays(self) -> dict[str, ArrayGroup]:
        return {name: self._arrays(name, schema.TOPK) for name in HIT_SETS}

    @property
    def _bottomk(self) -> str:
        """Where the weakest hits are: in a run that kept only those, in `topk`."""
        return "topk" if self._file.order == "smallest" else "bottomk"

    def _hits(self, name: str) -> Hits:
        found = self._hit_arrays[name]
        found.fetch()
        return Hits(found["value"], *(found[n] for n in ("sample", "position", "box", "status")))

    def _pictures(self, name: str) -> tuple[Patches, PatchPlan | None]:
        if name not in self._opened_pictures:
            self._opened_pictures[name] = open_patches(
                self._file,
                (*self._path, HIT_SETS[name]),
                self.info,
                lambda: self._hit_arrays[name]["box"],
            )
        return self._opened_pictures[name]

    @cached_property
    def _opened_pictures(self) -> dict[str, tuple[Patches, PatchPlan | None]]:
        return {}

    @cached_property
    def _histogram(self) -> ArrayGroup:
        return self._arrays("histogram", schema.HISTOGRAM)

    @cached_property
    def _overview(self) -> ArrayGroup:
        return self._arrays("overview", schema.OVERVIEW)

    @cached_property
    def _weights(self) -> ArrayGroup:
        kernel = self.info.kernel
        rank = len(kernel) if kernel is not None else len(self.info.size)
        return self._arrays("weights", {"weight": schema.weight_field(rank)})

    def __getitem__(self, index: int) -> Filter:
        """One filter."""
        return Filter(self, index)

    def __len__(self) -> int:
        """Number of filters."""
        return self.info.channels

    def __iter__(self) -> Iterator[Filter]:
        return (Filter(self, i) for i in range(len(self)))

    def _repr_html_(self) -> str | None:
        from fastconv.draw.notebook import layer_html

        return layer_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Layer, (self._file, self.info, self._path, self.under)
