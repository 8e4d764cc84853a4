"""The groups of one layer."""

from __future__ import annotations

import numpy as np
from h5py import h5g

from fastconv.format.result import LayerInfo, LayerResult, Pictures
from fastconv.histogram import bin_edges
from fastconv.measure.exact_sum import mean_and_var
from fastconv.store import schema
from fastconv.store.codec import Compressor
from fastconv.store.montage import overview, weights_picture
from fastconv.store.nexus import data_group
from fastconv.store.objects import put_text, set_attribute
from fastconv.store.quantiles import representatives
from fastconv.store.schema import Plot


def write_layer(group: h5g.GroupID, result: LayerResult, compressor: Compressor) -> str | None:
    """Write everything a run holds of one layer but its maps; returns the group to show first."""
    info = result.info
    set_attribute(group, "NX_class", "NXcollection")
    for key, value in schema.attributes_of(info).items():
        set_attribute(group, key, value)
    put_text(group, "info_json", schema.info_to_json(info))
    picture = overview(result)
    if picture is not None:
        _write_picture(group, "overview", picture, compressor)
    if result.patches is not None:
        _write_patches(group, info, result.patches, compressor)
    if result.topk:
        plot = Plot("value", ("filter", "rank"), interpretation="image")
        data_group(group, "topk", schema.TOPK, result.topk, plot, compressor)
    if result.stats:
        _write_stats(group, result.stats, compressor)
    if result.histogram is not None:
        _write_histogram(group, result.histogram, compressor)
    if result.weight is not None:
        _write_weights(group, result.weight, compressor)
    _write_samples(group, result, compressor)
    return next((name for name in _DEFAULTS if name.encode() in group), None)


_DEFAULTS = ("overview", "stats", "topk", "samples", "weights")


def _write_picture(
    group: h5g.GroupID, name: str, picture: np.ndarray, compressor: Compressor
) -> None:
    # y runs downwards, which h5web and silx both draw upright
    rows = {"y": np.arange(picture.shape[0], dtype="<i4")[::-1]}
    plot = Plot("montage", ("y", "x", "."), interpretation="rgb-image")
    data_group(
        group, name, schema.OVERVIEW, {"montage": picture}, plot, compressor, coordinates=rows
    )


def _write_patches(
    group: h5g.GroupID, info: LayerInfo, patches: np.ndarray | Pictures, compressor: Compressor
) -> None:
    images = patches.dtype == np.uint8
    rank = 2 if images else len(info.fields)
    field = schema.patch_field(images, rank)
    if images:
        plot = Plot(
            "patch",
            ("filter", "rank", "y", "x", "."),
            interpretation="rgb-image",
            default_slice=("0", "0", ".", ".", "."),
        )
    else:
        plot = array_plot("patch", field.dims, rank)
    rows = {"y": np.arange(patches.shape[2], dtype="<i4")[::-1]} if images else None
    data_group(
        group, "patches", {"patch": field}, {"patch": patches}, plot, compressor, coordinates=rows
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


def _write_stats(group: h5g.GroupID, raw: dict[str, np.ndarray], compressor: Compressor) -> None:
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
        "m2": var * count,
        "count": count,
        "positive_count": raw["positive"],
        "nonfinite": raw["nonfinite"],
        "dead": np.asarray(raw["positive"]) == 0,
    }
    plot = Plot("mean", ("filter",), auxiliary=("std", "min", "max", "positive"))
    data_group(group, "stats", schema.STATS, values, plot, compressor)
    sums = {name: raw[name] for name in schema.MERGE}
    data_group(group, "merge", schema.MERGE, sums, None, compressor)


def _write_histogram(group: h5g.GroupID, counts: np.ndarray, compressor: Compressor) -> None:
    edges = bin_edges()
    plot = Plot("counts", ("filter", "value"), interpretation="spectrum")
    made = data_group(
        group,
        "histogram",
        schema.HISTOGRAM,
        {"counts": counts, "edges": edges},
        plot,
        compressor,
        coordinates={"value": representatives(edges)},
    )
    set_attribute(made, "SILX_style", '{"axes_scale_type": ["linear", "symlog"]}')
    set_attribute(made, "relative_error", schema.QUANTILE_ERROR)


def _write_weights(group: h5g.GroupID, weight: np.ndarray, compressor: Compressor) -> None:
    rank = weight.ndim - 2
    field = schema.weight_field(rank)
    plot = array_plot("weight", field.dims, rank)
    data_group(group, "weights", {"weight": field}, {"weight": weight}, plot, compressor)
    picture = weights_picture(weight)
    if picture is not None:
        _write_picture(group, "weights_picture", picture, compressor)


def _write_samples(group: h5g.GroupID, result: LayerResult, compressor: Compressor) -> None:
    rows = {"max": result.samples_max, "mean": result.samples_mean}
    rows = {name: values for name, values in rows.items() if values is not None}
    if rows:
        signal, *others = rows
        plot = Plot(signal, ("sample", "filter"), tuple(others), interpretation="image")
        data_group(group, "samples", schema.SAMPLES, rows, plot, compressor)
