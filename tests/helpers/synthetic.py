"""Layer results made up for tests of the file: no model, no data set."""

from __future__ import annotations

import numpy as np
import torch

from fastconv.format.patch_plan import PatchPlan, channels_first, framed, window
from fastconv.format.result import LayerInfo, LayerResult, Maps, Rows, SampleTable
from fastconv.geometry import FieldMap
from fastconv.histogram import BINS
from fastconv.measure import exact_sum
from fastconv.ops.exact_add import exact_add
from fastconv.reduction import histogram_edges
from fastconv.store import codec, schema


def layer_info(name="conv1", channels=5, rank=2, kernel=3, size=7, kind=None):
    field = FieldMap(1, (-1,), (kernel - 1,))
    return LayerInfo(
        name=name,
        module_path=name.split("#")[0],
        kind=kind or f"Conv{rank}d",
        stage="conv",
        channels=channels,
        size=(size,) * rank,
        fields=(field,) * rank,
        status="exact",
        kernel=(kernel,) * rank,
        stride=(1,) * rank,
        padding=((1, 1),) * rank,
        dilation=(1,) * rank,
        groups=1,
    )


def exact_limbs(values):
    """The exact sums [C, limbs] of values [C, M] float64."""
    sums = exact_sum.empty_sums(len(values))
    exact_add(sums, torch.from_numpy(np.ascontiguousarray(values.T)))
    return exact_sum.canonical(sums.numpy())


def layer_values(info, samples=11, seed=0):
    """Activations [N, C, *size] float32 with a dead filter, one of NaN only, and some NaN."""
    rng = np.random.default_rng([seed, info.channels, len(info.size)])
    values = rng.normal(size=(samples, info.channels, *info.size)).astype(np.float32)
    values[:, 0] = -np.abs(values[:, 0])
    if info.channels > 2:
        values[:, 2] = np.nan
    values.reshape(samples, info.channels, -1)[1, -1, 0] = np.inf
    return values


def layer_result(
    info, *, k=3, samples=11, in_channels=3, images=None, seed=0, values=None, both=False
):
    """Everything that a run may hold of a layer, all of it consistent; and the activations.

    `both`: the hits of both orders.
    """
    values = layer_values(info, samples, seed) if values is None else values
    rank, channels = len(info.size), info.channels
    rng = np.random.default_rng(seed)
    flat = np.moveaxis(values, 1, 0).reshape(channels, -1).astype(np.float64)
    finite = np.isfinite(flat)
    zeroed = np.where(finite, flat, 0)
    edges = histogram_edges().numpy()
    histogram = np.zeros((channels, BINS), np.int64)
    for c in range(channels):
        bins = np.searchsorted(edges, flat[c, finite[c]], side="right") - 1
        np.add.at(histogram[c], bins, 1)
    images = rank == 2 and in_channels in (1, 3) if images is None else images
    topk = _hits(info, values, k)
    positions = info.size or (0,) * len(info.fields)  # without any: it sees the whole input
    extent = tuple(f.size + n for f, n in zip(info.fields, positions, strict=True))
    plan = PatchPlan.create(info, extent)
    channels_of_input = None if images else in_channels
    inputs = synthetic_inputs(plan, samples, channels_of_input, rng)
    result = LayerResult(
        info,
        weight=rng.normal(size=(channels, in_channels, *info.kernel)).astype(np.float32),
        stats={
            "count": finite.sum(1),
            "nonfinite": (~finite).sum(1),
            "positive": (finite & (flat > 0)).sum(1),
            "min": np.where(finite, flat, np.inf).min(1).astype(np.float32),
            "max": np.where(finite, flat, -np.inf).max(1).astype(np.float32),
            "sum": exact_limbs(zeroed),
            "sumsq": exact_limbs(zeroed**2),
        },
        histogram=histogram,
        topk=topk,
        patches=cut_patches(plan, topk, inputs),
        patch_plan=plan,
    )
    if both:
        bottomk = _hits(info, values, k, largest=False)
        result.set_hits("bottomk", bottomk, cut_patches(plan, bottomk, inputs))
    return result, values


def synthetic_inputs(plan, samples, channels, rng):
    """Reduced inputs: pictures [N, h, w, 3], or [N, channels, *extent] of anything else."""
    if channels is None:
        return rng.integers(0, 256, (samples, *plan.extent, 3), dtype=np.uint8)
    return rng.normal(size=(samples, channels, *plan.extent)).astype(np.float32)


def cut_patches(plan, topk, inputs):
    """The part of an input that each hit shows; a colour outside of it, zero in empty slots."""
    images = inputs.dtype == np.uint8
    size = (*plan.size, 3) if images else (inputs.shape[1], *plan.size)
    patches = np.zeros((*topk["sample"].shape, *size), inputs.dtype)
    start = plan.start(topk["box"])
    outside = np.array([9, 99, 0], np.uint8) if images else None
    inputs, shown = (channels_first(array, images=images) for array in (inputs, patches))
    for f, rank in np.argwhere(topk["sample"] >= 0):
        inside, there = window(start[f, rank], plan.size, plan.extent)
        part = inputs[topk["sample"][f, rank]][(slice(None), *there)]
        shown[f, rank] = framed(part, inside, plan.size, outside)
    return patches


def _hits(info, values, k, *, largest=True):
    samples, channels, rank = values.shape[0], info.channels, len(info.size)
    sign = 1 if largest else -1
    flat = sign * values.reshape(samples, channels, -1)
    ranked = np.where(np.isfinite(flat), flat, -np.inf)
    best, at = ranked.max(2), ranked.argmax(2)  # [N, C]
    order = np.argsort(-best, axis=0, kind="stable")[:k].T  # [C, k]
    value = np.take_along_axis(best.T, order, 1)
    where = np.take_along_axis(at.T, order, 1)
    position = np.zeros((channels, k, rank), np.int64)
    box = np.zeros((channels, k, len(info.fields), 2), np.int64)
    if rank:
        position = np.stack(np.unravel_index(where, info.size), -1)
        sides = [np.stack(f.box(position[..., d]), -1) for d, f in enumerate(info.fields)]
        box = np.stack(sides, -2)
    empty = ~np.isfinite(value)
    value = np.where(empty, np.nan, sign * value).astype(np.float32)
    order, position, box = order.copy(), position.copy(), box.copy()
    order[empty], position[empty], box[empty] = -1, -1, 0
    return {
        "value": value,
        "sample": order.astype(np.int64),
        "position": position.astype(np.int64),
        "box": box.astype(np.int64),
        "status": np.zeros((channels, k), np.uint8),
    }


def sample_table(count=11):
    keys = [f"faces/größe_{i:03d}.png" for i in range(count)]
    return SampleTable(count, keys, np.arange(count) % 3, [4])


def described_samples(count=11):
    """A table with everything that a file can hold of samples."""
    table, rng = sample_table(count), np.random.default_rng(7)
    prediction = rng.integers(0, 3, count)
    table.outcomes = {
        "label": table.labels,
        "prediction": prediction,
        "confidence": rng.random(count).astype(np.float32),
        "correct": (prediction == table.labels).astype(np.uint8),
    }
    table.columns = {
        "age": np.arange(count) * 7,
        "sample": np.linspace(0, 1, count),
        "site/ä": ["Ulm", "Zürich"] * (count // 2) + ["Bern"] * (count % 2),
    }
    table.classes = ["cat", "<b>dog</b>", "größe"]
    table.thumbnails = {
        sample: rng.integers(0, 256, (4 + sample, 6, 3), dtype=np.uint8) for sample in (9, 2, 5)
    }
    return table


CONFIG = {"options": {"topk": 3, "stage": "conv"}, "backend": "reference", "versions": {"b": 1}}


def with_maps(result, values, storage="rounded", samples=None, keepbits=None):
    """Adds maps of some samples, cut into two blocks."""
    samples = np.arange(len(values))[::2] if samples is None else np.asarray(samples)
    finite = np.nan_to_num(values[samples], posinf=9, neginf=-9)
    scale = offset = None
    keepbits = keepbits or {"rounded": 10}.get(storage, 23)
    if storage == "uint8":
        stored, *tables = codec.to_uint8(finite)
        scale, offset = (Rows(table.shape, [table]) for table in tables)
    else:
        stored = codec.round_mantissa(finite, keepbits).astype(schema.MAP_DTYPES[storage])
    blocks = iter([stored[:3], stored[3:]])
    result.maps = Maps(storage, keepbits, samples, Rows(stored.shape, blocks), scale, offset)
    return finite
