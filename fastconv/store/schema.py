"""Names, dtypes, shapes and attributes of the file; docs/file-format.md says the same in words."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastconv.format.patch_plan import MAX_POINTS, PatchPlan
from fastconv.format.result import STATUS, LayerInfo
from fastconv.geometry import FieldMap

FORMAT_VERSION = "2.0"
SPATIAL = {0: (), 1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}
QUANTILE_ERROR = 1 / 65  # of histogram bins that cut an octave into 32
MAX_NAME = 200  # bytes of an escaped name: it also names a file


class Field(NamedTuple):
    """A dataset: its dtype on disk and its named dimensions."""

    dtype: str | np.dtype
    dims: tuple[str, ...]


class Plot(NamedTuple):
    """How viewers draw a NeXus data group."""

    signal: str
    axes: tuple[str, ...]  # "." where a dimension has no axis
    auxiliary: tuple[str, ...] = ()
    interpretation: str | None = None
    default_slice: tuple[str, ...] = ()


PER_FILTER, PER_HIT = ("filter",), ("filter", "rank")

STATS = {
    "mean": Field("<f8", PER_FILTER),
    "std": Field("<f8", PER_FILTER),
    "min": Field("<f4", PER_FILTER),
    "max": Field("<f4", PER_FILTER),
    "positive": Field("<f8", PER_FILTER),
    "var": Field("<f8", PER_FILTER),
    "count": Field("<i8", PER_FILTER),
    "positive_count": Field("<i8", PER_FILTER),
    "nonfinite": Field("<i8", PER_FILTER),
}
MERGE = {"sum": Field("<i8", ("filter", "limb")), "sumsq": Field("<i8", ("filter", "limb"))}
TOPK = {
    "value": Field("<f4", PER_HIT),
    "sample": Field("<i8", PER_HIT),
    "position": Field("<i8", (*PER_HIT, "output_dimension")),
    "box": Field("<i8", (*PER_HIT, "input_dimension", "side")),
    "status": Field("|u1", PER_HIT),
}
HISTOGRAM = {
    "counts": Field("<i8", ("filter", "value")),
    "edges": Field("<f8", ("edges",)),
}
SAMPLES = {"max": Field("<f4", ("sample", "filter")), "mean": Field("<f4", ("sample", "filter"))}
OVERVIEW = {"montage": Field("|u1", ("y", "x", "color"))}
OUTCOMES = {"label": "<i8", "prediction": "<i8", "confidence": "<f4", "correct": "|u1"}
THUMBNAILS = {  # padded to the largest; `size` is that of the picture itself
    "picture": Field("|u1", ("thumbnail", "y", "x", "color")),
    "sample": Field("<i8", ("thumbnail",)),
    "size": Field("<i4", ("thumbnail", "side")),
}
COLUMN_DTYPES = ("<i8", "<f8")  # of numbers; other columns are text
NORMALIZATIONS = ("batchnorm", "zscore", "minmax", "instance", "l1", "l2")  # of maps
MAP_DTYPES = {"rounded": "<f4", "exact": "<f4", "float16": "<f2", "uint8": "|u1"}

UNITS = {
    "positive": "share of finite values",
    "count": "finite values",
    "positive_count": "values",
    "nonfinite": "values",
    "counts": "values",
    "position": "output positions",
    "box": "input pixels, stop exclusive",
    "status": "0 exact, 1 bound, 2 global",
    "sample": "index in the data set",
}


PATCH_ROW = Field("<i4", PER_HIT)  # the picture of each hit, -1 of none


def sample_field(dtype: str | np.dtype, dimensions: int) -> Field:
    """One value a sample, or with two dimensions one for each of its classes."""
    return Field(dtype, ("sample", "class") if dimensions > 1 else ("sample",))


def picture_field(images: bool, rank: int) -> Field:  # noqa: FBT001
    """Pictures: of images for the eye, of anything else arrays as the model got them."""
    if images:
        return Field("|u1", ("picture_number", "y", "x", "color"))
    return Field("<f4", ("picture_number", "channel", *SPATIAL[rank]))


def patch_field(images: bool, rank: int) -> Field:  # noqa: FBT001
    """Patches of format 1: a picture for every hit."""
    return picture_field(images, rank)._replace(
        dims=(*PER_HIT, *picture_field(images, rank).dims[1:])
    )


def weight_field(rank: int) -> Field:
    return Field("<f4", ("filter", "channel", *SPATIAL[rank]))


def map_fields(storage: str, rank: int) -> dict[str, Field]:
    """Activation maps; 8-bit ones come with a scale and an offset per row and filter."""
    fields = {"activation": Field(MAP_DTYPES[storage], ("row", "filter", *SPATIAL[rank]))}
    fields["sample"] = Field("<i8", ("row",))
    if storage == "uint8":
        fields["scale"] = fields["offset"] = Field("<f4", ("row", "filter"))
    return fields


def escape(name: str) -> str:
    """A layer's name as one safe component of an HDF5 path and of a file name.

    Letters, digits and `._-#+=,@()[]` stay, everything else becomes %XX per UTF-8 byte, a leading
    dot too; long names end in a hash.
    """
    keep = "._-#+=,@()[]"
    out = "".join(
        ch if ch.isascii() and (ch.isalnum() or ch in keep) else _percent(ch) for ch in name
    )
    if not out or out.startswith("."):
        out = "%2E" + out[1:] if out else "%"
    if len(out) > MAX_NAME:
        out = out[: MAX_NAME - 17] + "~" + hashlib.sha256(name.encode()).hexdigest()[:16]
    return out


def column_child(name: str) -> str:
    """The dataset of a column beside the one named `sample`, which counts its rows."""
    return "%73ample" if name == "sample" else escape(name)


def maps_path(run: Path, layer: str) -> Path:
    """The file of the maps of one layer: `run.maps/<layer>.h5` for `run.h5`."""
    return maps_folder(run) / f"{escape(layer)}.h5"


def maps_folder(run: Path) -> Path:
    return run.with_name(f"{run.name.removesuffix('.h5')}.maps")


def _percent(ch: str) -> str:
    return "".join(f"%{byte:02X}" for byte in ch.encode("utf-8", "surrogatepass"))


def to_json(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no NaN."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def infos_to_json(infos: Iterable[LayerInfo]) -> str:
    return to_json([asdict(info) for info in infos])


def infos_from_json(text: str) -> list[LayerInfo]:
    """Rebuild every `LayerInfo`; raises what Python does for text that was never written."""
    return [_info(raw) for raw in json.loads(text)]


def info_from_json(text: str) -> LayerInfo:
    """Rebuild the `LayerInfo` of one layer, as format 1 keeps it."""
    return _info(json.loads(text))


def _info(raw: dict[str, Any]) -> LayerInfo:
    fields = tuple(
        FieldMap(int(f["advance"]), _ints(f["start"]), _ints(f["stop"])) for f in raw["fields"]
    )
    optional = {k: _ints(raw[k]) if raw[k] is not None else None for k in _OPTIONAL}
    padding = raw["padding"]
    info = LayerInfo(
        name=str(raw["name"]),
        module_path=str(raw["module_path"]),
        kind=str(raw["kind"]),
        stage=str(raw["stage"]),
        channels=int(raw["channels"]),
        size=_ints(raw["size"]),
        fields=fields,
        status=str(raw["status"]),
        padding=None if padding is None else tuple((int(a), int(b)) for a, b in padding),
        groups=None if raw["groups"] is None else int(raw["groups"]),
        transposed=bool(raw["transposed"]),
        measured_by=None if raw.get("measured_by") is None else str(raw["measured_by"]),
        **optional,
    )
    if info.channels < 0 or len(info.size) > 3 or len(fields) > 3 or info.status not in STATUS:
        raise ValueError(f"the description of layer {info.name!r} makes no sense")
    return info


_OPTIONAL = ("kernel", "stride", "dilation")


def plan_to_json(plan: PatchPlan) -> str:
    return to_json(asdict(plan))


def plan_from_json(text: object, rank: int) -> PatchPlan | None:
    """Rebuild the `PatchPlan` of a layer whose inputs have `rank` spatial dimensions."""
    if text is None:
        return None
    raw = json.loads(str(text))
    plan = PatchPlan(
        int(raw["factor"]),
        _ints(raw["size"]),
        tuple(bool(w) for w in raw["whole"]),
        _ints(raw["extent"]),
    )
    if (
        plan.factor < 1
        or math.prod(plan.size) > MAX_POINTS
        or {len(plan.size), len(plan.whole), len(plan.extent)} != {rank}
    ):
        raise ValueError(f"pictures of {plan} make no sense")
    return plan


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def attributes_of(info: LayerInfo) -> dict[str, Any]:
    """The geometry of a layer as attributes, for people who browse the file.

    One dimension at most, as netCDF knows no other.
    """
    found = {
        "name": info.name,
        "module_path": info.module_path,
        "kind": info.kind,
        "stage": info.stage,
        "status": info.status,
        "receptive_field": [f.size for f in info.fields],
        "kernel": info.kernel,
        "stride": info.stride,
        "padding": info.padding and [n for pair in info.padding for n in pair],
        "dilation": info.dilation,
        "groups": info.groups,
        "measured_by": info.measured_by,
        "dtype": "float32",
    }
    return {
        k: np.asarray(v, "<i8") if isinstance(v, (list, tuple, int)) else v
        for k, v in found.items()
        if v is not None and v not in ([], ())
    }
