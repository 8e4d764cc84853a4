"""How much of a run goes into the page, so that it stays quick to open whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastconv.format.result import HIT_SETS
from fastconv.store.reader import Layer, Run

PICTURE_BYTES = 40e6  # of patches, about, before base64 adds a third: photographs take as much
WEIGHT_VALUES = 8e6  # one byte each; deflate takes some off
MAP_VALUES = 12e6
SAMPLE_VALUES = 6e6  # of the layer whose embedding is shown
THUMBNAIL_BYTES = 8e6
NAMED_SAMPLES = 50_000
EMBEDDED_SAMPLES = 20_000
INSIGHT_VALUES = 1e9  # responses of all samples and filters that tables are made of
NEAREST_OPERATIONS = 2e13  # multiplications for the nearest filters of all layers

_EXACT_FILTERS = 10_000
_BYTES_PER_PIXEL, _BYTES_PER_FILTER = 0.2, 180
_TILES = ((16, 96), (9, 96), (9, 64), (9, 48), (9, 32), (4, 48), (4, 32), (2, 32), (1, 32))


@dataclass(frozen=True)
class Budget:
    """What is kept of each filter."""

    ranks: int  # patches of a filter
    side: int  # greatest side of a patch in pixels
    exact: bool  # small patches are kept losslessly
    channels: int  # input channels of a filter's weights
    map_samples: int
    map_side: int  # greatest side of an activation map

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Budget:
        """The most that fits, for all runs of a page together."""
        layers = [run[name] for run in runs for name in run.layers]
        ranks, side = _tiles(layers)
        exact = sum(layer.info.channels for layer in layers) <= _EXACT_FILTERS
        return cls(ranks, side, exact, _channels(layers), *_maps(layers))


def _tiles(layers: Sequence[Layer]) -> tuple[int, int]:
    shapes = [
        getattr(layer, name).shape
        for layer in layers
        for name in HIT_SETS.values()
        if name in layer.holds
    ]
    for ranks, side in _TILES:
        size = 0.0
        for filters, k, *rest in shapes:
            pixels = min(k, ranks) * min(side, max(rest, default=1)) ** 2
            size += filters * (_BYTES_PER_FILTER + pixels * _BYTES_PER_PIXEL)
        if size <= PICTURE_BYTES:
            break
    return ranks, side


def _channels(layers: Sequence[Layer]) -> int:
    values = 0
    for layer in layers:
        elements = 1
        for size in layer.info.kernel or ():
            elements *= size
        values += layer.info.channels * elements
    return int(min(16, max(1, WEIGHT_VALUES // max(1, values))))


def _maps(layers: Sequence[Layer]) -> tuple[int, int]:
    """Samples and greatest side of the activation maps; (0, 0) where none fit."""
    for samples, side in ((16, 64), (16, 32), (8, 32), (4, 32), (4, 16), (2, 16), (1, 16), (1, 8)):
        values = 0
        for layer in layers:
            if "activations" in layer.holds:
                size = [min(side, n) for n in layer.info.size]
                elements = layer.info.channels * samples
                for n in size:
                    elements *= n
                values += elements
        if values <= MAP_VALUES:
            return samples, side
    return 0, 0
