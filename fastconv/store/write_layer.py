"""The groups of one layer."""

from __future__ import annotations

import numpy as np
from h5py import h5g, h5i

from fastconv.draw.montage import overview, weights_picture
from fastconv.format.quantiles import representatives
from fastconv.format.result import LayerResult
from fastconv.histogram import bin_edges
from fastconv.measure.exact_sum import mean_and_var
from fastconv.store import schema
from fastconv.store.atomic import reserve
from fastconv.store.low_level import new_group, set_attribute
from fastconv.store.nexus import Output, data_group
from fastconv.store.schema import Plot
from fastconv.store.write_patches import PatchWriter, array_plot

WEIGHTS_CHUNK = 2**16  # bytes: a reader that wants one filter reads few beside it
_DEFAULTS = ("overview", "stats", "topk", "samples", "weights")


def write_layer(
    group: h5g.GroupID, result: LayerResult, output: Output, patches: PatchWriter
) -> str | None:
    """Write everything a run holds of one layer but its maps; returns the group to show first."""
    reserve(h5i.get_file_id(group))
    for key, value in schema.attributes_of(result.info).items():
        set_attribute(group, key, value)
    _write(group, result, output, patches, None)
    if result.weight is not None:
        _write_weights(group, result.weight, output)
    if result.conditions:
        conditions = new_group(group, "conditions", ordered=True)
        set_attribute(conditions, "NX_class", "NXcollection")
        for name, found in result.conditions.items():
            reserve(h5i.get_file_id(group))
            child = new_group(conditions, schema.escape(name))
            set_attribute(child, "name", name)
            _write(child, found, output, patches, name)
    return next((name for name in _DEFAULTS if name.encode() in group), None)


def _write(
    group: h5g.GroupID,
    result: LayerResult,
    output: Output,
    patches: PatchWriter,
    condition: str | None,
) -> None:
    """Write what was measured."""
    set_attribute(group, "NX_class", "NXcollection")
    # small arrays first, side by side: a reader elsewhere fetches them at once
    if result.stats:
        _write_stats(group, result.stats, output)
    plot = Plot("value", ("filter", "rank"), interpretation="image")
    for name, arrays, _ in result.hit_sets():
        data_group(group, name, schema.TOPK, arrays, plot, output)
    for name, _, pictures in result.hit_sets():
        if pictures is not None:
            patches.write(group, result, name, condition)
    montage = overview(result) if condition is None else None  # a preview of pictures kept anyway
    if montage is not None:
        _write_montage(group, "overview", montage, output)
    if result.histogram is not None:
        _write_histogram(group, result.histogram, output)
    _write_samples(group, result, output)


def _write_montage(group: h5g.GroupID, name: str, montage: np.ndarray, output: Output) -> None:
    # y runs downwards, which h5web and silx both draw upright
    rows = {"y": np.arange(montage.shape[0], dtype="<i4")[::-1].copy()}
    plot = Plot("montage", ("y", "x", "."), interpretation="rgb-image")
    data_group(group, name, schema.OVERVIEW, {"montage": montage}, plot, output, coordinates=rows)


def _write_stats(group: h5g.GroupID, raw: dict[str, np.ndarray], output: Output) -> None:
    count = np.asarray(raw["count"], np.int64)
    mean, var = mean_and_var(raw["sum"], raw["sumsq"], count)
    empty = count == 0
    share = np.full(count.shape, np.nan)
    np.divide(raw["positive"], count, out=share, where=~empty)
    values = {
        "mean": mean,
        "std": np.sqrt(var),
        "min": np.where(empty, np.nan, raw["min"]),
        "max": np.where(empty, np.nan, raw["max"]),
        "positive": share,
        "var": var,
        "count": count,
        "positive_count": raw["positive"],
        "nonfinite": raw["nonfinite"],
    }
    plot = Plot("mean", ("filter",), auxiliary=("std", "min", "max", "positive"))
    data_group(group, "stats", schema.STATS, values, plot, output)
    sums = {name: raw[name] for name in schema.MERGE}
    data_group(group, "merge", schema.MERGE, sums, None, output)


def _write_histogram(group: h5g.GroupID, counts: np.ndarray, output: Output) -> None:
    edges = bin_edges()
    plot = Plot("counts", ("filter", "value"), interpretation="spectrum")
    values = {"counts": counts, "edges": edges}
    bins = {"value": representatives(edges)}
    made = data_group(group, "histogram", schema.HISTOGRAM, values, plot, output, coordinates=bins)
    set_attribute(made, "SILX_style", '{"axes_scale_type": ["linear", "symlog"]}')
    set_attribute(made, "relative_error", schema.QUANTILE_ERROR)


def _write_weights(group: h5g.GroupID, weight: np.ndarray, output: Output) -> None:
    rank = weight.ndim - 2
    field = schema.weight_field(rank)
    plot = array_plot("weight", field.dims, rank)
    values = {"weight": weight}
    data_group(group, "weights", {"weight": field}, values, plot, output, chunk_bytes=WEIGHTS_CHUNK)
    picture = weights_picture(weight)
    if picture is not None:
        _write_montage(group, "weights_picture", picture, output)


def _write_samples(group: h5g.GroupID, result: LayerResult, output: Output) -> None:
    rows = {"max": result.samples_max, "mean": result.samples_mean}
    rows = {name: values for name, values in rows.items() if values is not None}
    if rows:
        signal, *others = rows
        plot = Plot(signal, ("sample", "filter"), tuple(others), interpretation="image")
        data_group(group, "samples", schema.SAMPLES, rows, plot, output)
