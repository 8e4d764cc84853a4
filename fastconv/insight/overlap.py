"""Network Dissection: which filters fire where a mask is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastconv.capture import Forward
from fastconv.errors import InputError
from fastconv.format.quantiles import quantiles
from fastconv.insight.passes import Pass, passing
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.reduction import histogram_edges
from fastconv.run.layer_sink import stage_value

if TYPE_CHECKING:
    from fastconv.store.reader import Run

_VALUES = 2**23  # of upsampled maps at a time
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def overlap(
    model: nn.Module,
    data: Any,
    masks: Any,
    layers: Any = None,
    quantile: float = 0.995,
    *,
    stage: str = "conv",
    run: Run | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    forward: Forward | None = None,
) -> pd.DataFrame:
    """Measure how far the places where each filter fires strongly are those of a mask.

    A filter fires where its map, interpolated (bi- or trilinearly) to the size of the input, is
    above its own quantile over all samples and positions. The quantile comes from the histogram
    (within 1.6 %), of `run` where one is given, so that one pass is enough, else of a pass before.

    Args:
        model, data: as for `fastconv.extract`.
        masks: one value per input position: {class: [N, *spatial] bool}; or [N, *spatial] of
            integers, where 0 is no class; or of booleans, the one class 1. Numpy, torch, or
            anything with `shape` and slices.
        layers: as for `fastconv.extract`; default every convolution.
        quantile: share of the values of a filter that are no hits.
        stage: of convolutions, as for `fastconv.extract`.
        run: of the same model, data and stage, with quantiles: where thresholds come from.
        batch_size, num_workers, device, forward: as for `fastconv.extract`.

    Returns:
        One row a (layer, filter, class), best first within a layer and class; filters that are
        never finite are left out:

        - layer, filter, class.
        - iou: positions where the filter fires inside the mask, over those where it fires or
          the mask is, over all samples; 0 where there is neither.
        - inside: share of the energy (sum of the squared map where it fires) inside the mask; 0
          where it never fires.
        - threshold: the quantile.

    Raises:
        InputError: masks of another number or size than the samples, without any class, or a
            quantile outside (0, 1).

    Source: Bau et al., Network Dissection, CVPR 2017.
    """
    if not 0 < quantile < 1:
        raise InputError(f"quantile must lie between 0 and 1, got {quantile!r}")
    options: Any = {"batch_size": batch_size, "num_workers": num_workers, "device": device}
    with passing(model, data, layers, stage, forward=forward, **options) as reading:
        targets, size = reading.targets, tuple(reading.source.sample_shape[1:])
        mask = _Masks(masks, len(reading.source), size)
        for target in targets:
            if len(target.info.size) != len(size):
                raise InputError(
                    f"{target.info.name} has maps of {len(target.info.size)} dimensions and the "
                    f"input {len(size)}, so they cannot be laid over each other; leave it out"
                )
        if run is not None:
            limits = [_of_run(run, target.info.name, quantile, stage) for target in targets]
        else:
            limits = _thresholds(reading, quantile)
        tallies = [_Tally(limit, len(mask.names), size) for limit in limits]

        def take(i: int, output: Tensor, rows: list[int]) -> None:
            tallies[i].add(stage_value(output, targets[i]), mask.rows(rows).to(output.device))

        reading.run(take)
    tables = [
        pd.DataFrame({"layer": t.info.name, **tally.columns(mask.names)})
        for t, tally in zip(targets, tallies, strict=True)
    ]
    return pd.concat(tables).dropna(ignore_index=True)


class _Masks:
    """Masks of several classes, read by sample."""

    def __init__(self, masks: Any, count: int, size: tuple[int, ...]):
        given = masks if isinstance(masks, Mapping) else {None: masks}
        if not given:
            raise InputError("masks is empty: give {class: [N, *spatial] bool}")
        for array in given.values():
            shape = tuple(getattr(array, "shape", ()))
            if shape != (count, *size):
                raise InputError(
                    f"masks must be {[count, *size]}, one value per sample and input position, "
                    f"got {list(shape)}"
                )
        self._arrays = list(given.values())
        self._values: list[Any] | None = None
        if not isinstance(masks, Mapping):
            self._values = self._classes(masks)
        self.names: list[Any] = list(given) if self._values is None else self._values

    @staticmethod
    def _classes(array: Any) -> list[int]:
        kinds = {str(array.dtype).removeprefix("torch.").rstrip("0123456789")}
        if not kinds <= {"bool", "int", "uint"}:
            raise InputError(f"masks must be booleans or integers, got {array.dtype}")
        found: set[int] = set()
        for start in range(0, len(array), 256):
            found |= {int(v) for v in np.unique(np.asarray(array[start : start + 256]))}
        if not found - {0}:
            raise InputError("the masks are 0 everywhere: there is no class to look for")
        return sorted(found - {0})

    def rows(self, rows: Sequence[int]) -> Tensor:
        """[n, classes, *spatial] bool."""
        lists = [np.asarray(array[list(rows)]) for array in self._arrays]
        if self._values is None:
            for name, part in zip(self.names, lists, strict=True):
                if part.dtype.kind == "f" and len(other := part[(part != 0) & (part != 1)]):
                    raise InputError(
                        f"the mask {name!r} must be 0 or 1 everywhere, got {other[0]:g}; give "
                        "mask > 0.5, say"
                    )
            return torch.from_numpy(np.stack([part.astype(bool) for part in lists], 1))
        part = lists[0].astype(np.int64)
        return torch.from_numpy(np.stack([part == value for value in self._values], 1))


class _Tally:
    """Where the filters of one layer fire, counted against the classes of a mask."""

    def __init__(self, limits: np.ndarray, classes: int, size: tuple[int, ...]):
        self._limits, self._size = limits, size  # [C]
        self._both = np.zeros((len(limits), classes))  # positions and energy, filter by class
        self._energy_both = np.zeros((len(limits), classes))
        self._fires, self._energy = np.zeros(len(limits)), np.zeros(len(limits))
        self._mask = np.zeros(classes)

    def add(self, value: Tensor, inside: Tensor) -> None:
        """Take maps [n, C, *spatial] and masks [n, classes, *size]."""
        flat = inside.flatten(2).float()  # [n, K, P]
        self._mask += _numpy(flat.sum((0, 2), dtype=torch.float64))
        limits = torch.from_numpy(self._limits).to(value)
        step = max(1, _VALUES // (len(value) * math.prod(self._size)))
        for first in range(0, len(self._limits), step):
            part = slice(first, first + step)
            large = F.interpolate(value[:, part], self._size, mode=_MODES[len(self._size)])
            large = large.flatten(2)  # [n, c, P]
            fires = large > limits[part, None]
            energy = torch.where(fires, large, 0).square()
            self._fires[part] += _numpy(fires.sum((0, 2)))
            self._energy[part] += _numpy(energy.sum((0, 2), dtype=torch.float64))
            for found, values in ((self._both, fires.float()), (self._energy_both, energy)):
                found[part] += _numpy((values @ flat.mT).sum(0, dtype=torch.float64))

    def columns(self, names: Sequence[Any]) -> dict[str, Any]:
        filters, classes = self._both.shape
        union = self._fires[:, None] + self._mask - self._both
        iou = self._both / np.where(union > 0, union, 1)
        share = self._energy_both / np.where(self._energy > 0, self._energy, 1)[:, None]
        order = [np.argsort(-iou[:, k], kind="stable") for k in range(classes)]
        return {
            "filter": np.concatenate(order),
            "class": [name for name in names for _ in range(filters)],
            "iou": np.concatenate([iou[o, k] for k, o in enumerate(order)]),
            "inside": np.concatenate([share[o, k] for k, o in enumerate(order)]),
            "threshold": np.concatenate([self._limits[o] for o in order]),
        }


def _thresholds(reading: Pass, quantile: float) -> list[np.ndarray]:
    """The quantile of every filter [C] of each layer, by a pass over the data."""
    targets = reading.targets
    edges = histogram_edges().numpy()
    counts = [np.zeros((t.info.channels, len(edges) - 1), np.int64) for t in targets]
    low = [np.full(t.info.channels, np.inf) for t in targets]
    high = [np.full(t.info.channels, -np.inf) for t in targets]

    def take(i: int, output: Tensor, rows: list[int]) -> None:
        t = targets[i]
        found = channel_reduce(
            output, scale=t.scale, shift=t.shift, activation=t.activation, histogram=True
        )
        assert found.histogram is not None
        counts[i] += _numpy(found.histogram)
        low[i] = np.minimum(low[i], _numpy(found.min.amin(0)))
        high[i] = np.maximum(high[i], _numpy(found.max.amax(0)))

    reading.run(take)
    return [
        quantiles(n, edges, a, b, np.array([quantile]))[:, 0]
        for n, a, b in zip(counts, low, high, strict=True)
    ]


def _of_run(run: Run, name: str, quantile: float, stage: str) -> np.ndarray:
    layer = run[name]
    if layer.info.kernel is not None and run.config.get("fingerprint", {}).get("stage") != stage:
        taken = run.config.get("fingerprint", {}).get("stage")
        raise InputError(f"{run.path} has the stage {taken!r}, not {stage!r}; give stage={taken!r}")
    return layer.quantile(quantile)[:, 0]


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
