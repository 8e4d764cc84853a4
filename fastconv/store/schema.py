"""Names, dtypes, shapes and attributes of the file; docs/file-format.md says the same in words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastconv.format.result import STATUS, LayerInfo
from fastconv.geometry import FieldMap

FORMAT_VERSION = "1.0"
SPATIAL = {0: (), 1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}
QUANTILE_ERROR = 1 / 65  # of histogram bins that cut an octave into 32
MAX_NAME = 200  # bytes of an escaped name: it also names a file


class Field(NamedTuple):
    """A dataset: its dtype on disk and its named dimensions."""

    dtype: str | np.dtype
    dims: tuple[str, ...]


class Plot(NamedTuple):
    """What a viewer draws of a NeXus data group."""

    signal: str
    axes: tuple[str, ...]  # "." where a dimension has no axis
    auxiliary: tuple[str, ...] = ()
    interpretation: str | None = None
    default_slice: tuple[str, ...] = ()


F, K = ("filter",), ("filter", "rank")

STATS = {
    "mean": Field("<f8", F),
    "std": Field("<f8", F),
    "min": Field("<f4", F),
    "max": Field("<f4", F),
    "positive": Field("<f8", F),
    "var": Field("<f8", F),
    "m2": Field("<f8", F),
    "count": Field("<i8", F),
    "positive_count": Field("<i8", F),
    "nonfinite": Field("<i8", F),
    "dead": Field("|u1", F),
}
MERGE = {"sum": Field("<i8", ("filter", "limb")), "sumsq": Field("<i8", ("filter", "limb"))}
TOPK = {
    "value": Field("<f4", K),
    "sample": Field("<i8", K),
    "position": Field("<i8", (*K, "output_dimension")),
    "box": Field("<i8", (*K, "input_dimension", "side")),
    "status": Field("|u1", K),
}
HISTOGRAM = {
    "counts": Field("<i8", ("filter", "value")),
    "edges": Field("<f8", ("edge",)),
}
SAMPLES = {"max": Field("<f4", ("sample", "filter")), "mean": Field("<f4", ("sample", "filter"))}
OVERVIEW = {"montage": Field("|u1", ("y", "x", "color"))}
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


def patch_field(images: bool, rank: int) -> Field:  # noqa: FBT001
    """The patches of images are pictures; of anything else arrays as the model got them."""
    if images:
        return Field("|u1", (*K, "y", "x", "color"))
    return Field("<f4", (*K, "channel", *SPATIAL[rank]))


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


def info_to_json(info: LayerInfo) -> str:
    return to_json(asdict(info))


def info_from_json(text: str) -> LayerInfo:
    """Rebuild a `LayerInfo`; raises what Python does for text that could not have been written."""
    raw = json.loads(text)
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
