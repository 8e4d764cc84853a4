"""The options of a run, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import torch

from fastconv import dispatch
from fastconv.errors import FileFormatError, InputError
from fastconv.format.result import NORMALIZED_ON_READING
from fastconv.ops.channel_normalize import MODES
from fastconv.store.schema import MAP_DTYPES

STAGES = ("conv", "norm", "act")
ORDERS = {  # the sets of hits that each keeps: whether of the largest values
    "largest": {"topk": True},
    "smallest": {"topk": False},
    "both": {"topk": True, "bottomk": False},
}


@dataclass(frozen=True)
class Options:
    """What `fastconv.extract` was asked to measure; everything here decides the result."""

    stage: str
    topk: int
    hits_per_sample: int
    order: str
    stats: bool
    quantiles: bool
    patches: bool
    samples: bool
    maps: tuple[int, ...] | str | None  # sample indices, "all", or None
    maps_dtype: str
    normalize: str | None  # of maps
    batch_size: int
    dtype: str | None
    backend: str
    shard: tuple[int, int]
    outcomes: bool = False
    output: str | int | None = None  # where the class scores are in the output
    columns: tuple[str, ...] = ()  # of the data set
    conditions: dict[str, dict[str, Any]] | None = None  # name: what identifies the change
    thumbnails: bool | None = False  # None: where they are small

    @classmethod
    def create(cls, *, length: int | None, **given: Any) -> Options:
        """Check the arguments of `extract` for a data set of `length` samples, None if unknown.

        Raises:
            InputError: an argument out of its range; the message says which and what would do.
        """
        choices_of = {"stage": STAGES, "order": tuple(ORDERS), "maps_dtype": tuple(MAP_DTYPES)}
        for name, choices in choices_of.items():
            if given[name] not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {given[name]!r}")
        for name, lowest in (("topk", 0), ("hits_per_sample", 1), ("batch_size", 1)):
            value = given[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise InputError(f"{name} must be an int of at least {lowest}, got {value!r}")
        dispatch.check_name(given["backend"])
        given["quantiles"] = given["quantiles"] and given["stats"]
        given["patches"] = given["patches"] and given["topk"] > 0
        if not given["patches"]:
            given["thumbnails"] = False
        given["maps"] = _map_samples(given["maps"], length)
        _check_normalize(given)
        given["dtype"] = _dtype_name(given["dtype"])
        given["shard"] = _shard(given["shard"])
        given["columns"] = _columns(given.get("columns", ()))
        if given.get("output") is not None and not given.get("outcomes"):
            raise InputError("output names the class scores of outcomes; give outcomes=True, too")
        options = cls(**given)
        if not (options.stats or options.topk or options.samples or options.maps):
            raise InputError("nothing to measure: stats, topk, samples and maps are all off")
        return options

    @classmethod
    def from_stored(cls, stored: dict[str, Any], length: int | None = None) -> Options:
        """Read the options back that a file's fingerprint holds; later ones have their default.

        Raises:
            FileFormatError: an option is missing, or has a value that cannot be.
        """
        given = {f.name: stored[f.name] for f in fields(cls) if f.name in stored}
        defaults = {f.name: f.default for f in fields(cls) if f.default is not MISSING}
        try:
            return cls.create(length=length, **{**defaults, **given})
        except (TypeError, KeyError) as error:
            raise FileFormatError(
                f"the fingerprint of the file does not tell how it was made ({error}); "
                "extract it anew"
            ) from error

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the shard only where there is more than one.

        What format 1.0 did not know stands there only where it was asked for.
        """
        values = asdict(self)
        values["columns"] = list(self.columns)
        for name, default in (("outcomes", False), ("columns", []), ("conditions", None)):
            if values[name] == default:
                del values[name]
        if self.output is None:
            del values["output"]
        if self.maps is not None and not isinstance(self.maps, str):
            values["maps"] = list(self.maps)
        values["shard"] = None if self.shard == (0, 1) else list(self.shard)
        return values

    @property
    def hit_sets(self) -> dict[str, bool]:
        """The sets of hits that are kept, by name: whether of the largest values."""
        return ORDERS[self.order] if self.topk else {}

    @property
    def many_hits(self) -> bool:
        """Whether hits are taken from the whole activation: several of a sample may count."""
        return self.topk > 0 and self.hits_per_sample > 1


def _map_samples(maps: Any, length: int | None) -> tuple[int, ...] | str | None:
    if maps is None or maps == "all":
        return maps
    if isinstance(maps, slice):
        maps = _of_slice(maps, length)
    if isinstance(maps, str) or not isinstance(maps, Sequence | torch.Tensor | range):
        raise InputError(f"maps must be sample indices, a slice, 'all' or None, got {maps!r}")
    indices = sorted({int(i) for i in maps})
    if indices and indices[0] < 0:
        raise InputError(f"maps: there is no sample {indices[0]}; they count from 0")
    if indices and length is not None and indices[-1] >= length:
        raise InputError(f"maps: there is no sample {indices[-1]}; the data set has {length}")
    return tuple(indices) or None


def _of_slice(maps: slice, length: int | None) -> range:
    if length is not None:
        return range(length)[maps]
    if maps.stop is None or min(maps.start or 0, maps.stop) < 0:
        raise InputError(
            f"maps={maps}: the stream does not tell its length; give a slice from the front that "
            "has an end, or 'all'"
        )
    return range(maps.stop)[maps]


def _columns(columns: Any) -> tuple[str, ...]:
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise InputError(f"columns must be names, each once, got {columns!r}")
    return names


def _check_normalize(given: dict[str, Any]) -> None:
    normalize, stage = given["normalize"], given["stage"]
    if given["maps"] is None and (normalize is not None or given["maps_dtype"] != "rounded"):
        raise InputError(
            "normalize and maps_dtype are of the maps that are kept; give maps=... too"
        )
    if normalize is not None and normalize not in MODES:
        raise InputError(f"normalize must be None or one of {', '.join(MODES)}, got {normalize!r}")
    if normalize in NORMALIZED_ON_READING and not given["stats"]:
        raise InputError(f"normalize={normalize!r} needs the statistics: leave stats on")
    if normalize == "batchnorm" and stage != "conv":
        raise InputError(
            f'normalize="batchnorm" is for stage="conv"; stage={stage!r} follows the norm already'
        )


def _dtype_name(dtype: Any) -> str | None:
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in ("float32", "bfloat16", "float16"):
        raise InputError(f"dtype must be None, float32, bfloat16 or float16, got {dtype!r}")
    return name


def _shard(shard: Any) -> tuple[int, int]:
    if shard is None:
        return (0, 1)
    try:
        index, count = (int(v) for v in shard)
    except (TypeError, ValueError):
        index, count = -1, 0
    if not 0 <= index < count:
        raise InputError(f"shard must be (index, count) with 0 <= index < count, got {shard!r}")
    return (index, count)
