"""Results as plain data, passed between capture, measure and store."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.geometry import FieldMap

if TYPE_CHECKING:
    from fastconv.format.patch_plan import PatchPlan

STATUS = ("exact", "bound", "global")  # stored as its index
# the hits in one order, and their pictures: fields of a `LayerResult`, and groups of a layer's file
HIT_SETS = {"topk": "patches", "bottomk": "bottomk_patches"}
NORMALIZED_ON_READING = ("zscore", "minmax")  # they need statistics of the whole data set


@dataclass(frozen=True)
class LayerInfo:
    """Description of a layer, known before any data has been seen."""

    name: str  # "layer1.0.conv1"; "relu#1" for the second call of relu
    module_path: str
    kind: str  # class name of the module
    stage: str  # "conv", "norm" or "act"
    channels: int
    size: tuple[int, ...]  # output positions per spatial dimension, 0 to 3 of them
    fields: tuple[FieldMap, ...]  # receptive field per spatial dimension of the input
    status: str  # of the receptive field: one of STATUS
    kernel: tuple[int, ...] | None = None  # these five only for convolutions
    stride: tuple[int, ...] | None = None
    padding: tuple[tuple[int, int], ...] | None = None
    dilation: tuple[int, ...] | None = None
    groups: int | None = None
    transposed: bool = False
    measured_by: str | None = None  # the op: conv_reduce, fused with the layer, or channel_reduce


@dataclass
class Rows:
    """An array given as consecutive blocks of rows, so that it need not fit into memory."""

    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]  # arrays or h5py datasets, [rows, *shape[1:]]


class Pictures:
    """An array [C, k, ...] whose entries are pictures of a pool, or zero.

    Indexed as an array is by a slice or a mask of its first dimensions: only what is asked for is
    copied.
    """

    def __init__(self, pool: np.ndarray, rows: np.ndarray):
        """Take the pool [M, ...] and the picture [C, k] of each entry there, -1 of none."""
        self._pool, self._rows = pool, rows
        self.shape = (*rows.shape, *pool.shape[1:])
        self.dtype = pool.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __getitem__(self, which: Any) -> np.ndarray:
        rows = self._rows[which]
        if not len(self._pool):
            return np.zeros((*rows.shape, *self._pool.shape[1:]), self.dtype)
        taken = self._pool.take(np.maximum(rows, 0), axis=0)
        taken[rows < 0] = 0
        return taken


@dataclass
class Maps:
    """Activation maps of some samples, as `fastconv.store.codec` keeps them on disk."""

    storage: str  # "rounded", "exact", "float16" or "uint8"
    keepbits: int  # of the mantissa: 10 or 7 when rounded, else 23
    samples: np.ndarray  # [n] int64, the sample of each row
    activation: Rows  # [n, C, *spatial] in the dtype of the storage
    scale: Rows | None = None  # [n, C] float32 of "uint8" storage: value = scale * a + offset
    offset: Rows | None = None
    normalize: str | None = None  # a mode of `channel_normalize`; done unless on reading


@dataclass
class SampleTable:
    """Facts about the samples of a data set, `count` = N of them."""

    count: int
    keys: Sequence[str] | None = None  # file names and the like
    labels: np.ndarray | None = None  # [N] integers; or [N, K] of 0, 1 and -1 (missing)
    skipped: Sequence[int] = ()  # samples that could not be read, with skipping allowed
    # label and prediction int64, confidence float32, correct uint8, each [N], or [N, K] of a
    # multi-label model; -1, -1, NaN and 0 where a sample was skipped
    outcomes: Mapping[str, np.ndarray] = field(default_factory=dict)
    columns: Mapping[str, np.ndarray | Sequence[str]] = field(default_factory=dict)  # numbers, text
    classes: Sequence[str] | None = None  # the name of each label
    thumbnails: Mapping[int, np.ndarray] = field(default_factory=dict)  # sample: uint8 [h, w, 3]

    def class_names(self) -> list[str] | None:
        """`classes`, where two are called the same with their label: ImageNet has two cranes."""
        if self.classes is None:
            return None
        count = Counter(self.classes)
        return [
            name if name and count[name] == 1 else f"{name or 'class'} ({label})"
            for label, name in enumerate(self.classes)
        ]


@dataclass
class LayerResult:
    """Everything that a run holds of one layer; arrays as they are stored."""

    info: LayerInfo
    weight: np.ndarray | None  # [C_out, C_in/groups, *kernel]
    # stats: count, nonfinite, positive int64 [C]; min, max float32 [C];
    # sum, sumsq int64 [C, limbs]: exact fixed-point sums, see fastconv/measure/exact_sum.py
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    histogram: np.ndarray | None = None  # [C, bins] int64
    # topk: value float32 [C, k]; sample int64 [C, k]; position int64 [C, k, D];
    # box int64 [C, k, D_in, 2]; status uint8 [C, k]. Empty slots: NaN, -1, -1, 0.
    topk: dict[str, np.ndarray] = field(default_factory=dict)
    # uint8 [C, k, h, w, 3] for images, else float32 [C, k, C_in, *size]; Pictures, or what a reader
    # has: indexed as an array is in its first two dimensions
    patches: Any = None
    # of runs that keep both orders: the hits of the smallest values, as those of the largest above
    bottomk: dict[str, np.ndarray] = field(default_factory=dict)
    bottomk_patches: Any = None
    samples_max: Rows | None = None  # [N, C] float32, NaN where a sample has no finite value
    samples_mean: Rows | None = None
    maps: Maps | None = None
    patch_plan: PatchPlan | None = None  # where patches lie in the inputs, when that is known
    conditions: dict[str, LayerResult] = field(default_factory=dict)  # by name; they have no weight

    def hit_sets(self) -> Iterator[tuple[str, dict[str, np.ndarray], Any]]:
        """Name, arrays and pictures of each set of hits that is there."""
        for name, pictures in HIT_SETS.items():
            if arrays := getattr(self, name):
                yield name, arrays, getattr(self, pictures)

    def set_hits(self, name: str, arrays: dict[str, np.ndarray], pictures: Any = None) -> None:
        """Give the set of hits `name` of `HIT_SETS` its arrays and pictures."""
        setattr(self, name, arrays)
        setattr(self, HIT_SETS[name], pictures)
