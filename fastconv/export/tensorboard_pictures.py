"""Pictures and facts of a run as TensorBoard takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastconv.draw.heat import (
    columns_of,
    diverging,
    enlarge,
    finite_peak,
    finite_span,
    grid,
    kernel_tiles,
    sequential,
    squares,
)
from fastconv.export.inputs import chosen_maps, input_picture
from fastconv.store.reader import Layer, Run

_FILTERS, _SIDE = 64, 720  # of a picture of kernels; pixels that small pictures grow to
_MAP_FILTERS, _MAP_SAMPLES = 8, 8
_SPRITE = 48  # pixels a side
_WHITE = 255
_FACTS = ("mean", "std", "min", "max", "positive")


def images(layer: Layer) -> Iterator[tuple[str, np.ndarray]]:
    """Kernels, filters with their patches, and maps: names and pictures [H, W, 3] uint8."""
    weight = layer.weight
    if weight is not None and weight.size:
        yield "kernels", _kernels(weight[:_FILTERS])
    if "overview" in layer.holds:
        yield "filters and their strongest patches", layer.overview
    maps = _maps(layer)
    if maps is not None:
        yield "activation maps (rows: filters, columns: samples)", maps


def _kernels(weight: np.ndarray) -> np.ndarray:
    """A tile a filter, on one scale with zero in pale grey."""
    tiles = kernel_tiles(weight)
    gap = max(1, max(tiles.shape[1:]) // 8)
    columns = columns_of(len(tiles), tiles.shape[1] + gap, tiles.shape[2] + gap)
    coloured = diverging(tiles, finite_peak(weight))
    coloured[np.isnan(tiles)] = _WHITE
    return enlarge(grid(coloured, columns, gap, _WHITE), _SIDE)


def _maps(layer: Layer) -> np.ndarray | None:
    """Maps of the most selective filters, a row a filter on its own scale, columns the samples."""
    found = chosen_maps(layer, _MAP_FILTERS, _MAP_SAMPLES)
    if found is None:
        return None
    values = found.values
    if values.ndim == 5:  # the middle plane
        values = values[:, :, values.shape[2] // 2]
    values = values.reshape(*values.shape[:2], *(1,) * (4 - values.ndim), *values.shape[2:])
    if values.shape[2] == 1:  # lines become bands that can be seen
        values = values.repeat(max(1, values.shape[3] // 8), axis=2)
    rows = [sequential(row, *finite_span(row)) for row in values]
    gap = max(1, max(values.shape[2:]) // 16)
    picture = grid(np.concatenate(rows), values.shape[1], gap, _WHITE)
    return enlarge(picture, _SIDE)


def filter_facts(layer: Layer, count: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what is known of the first filters."""
    header, columns = ["filter"], [[str(i) for i in range(count)]]
    if "stats" in layer.holds:
        stats = layer.stats
        for name in _FACTS:
            columns.append([f"{value:.4g}" for value in stats[name][:count]])
        columns.append(["dead" if dead else "" for dead in stats["dead"][:count]])
        header += [*_FACTS, "dead"]
    return header, _rows(columns)


def sample_facts(run: Run, samples: np.ndarray) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what is known of samples."""
    header, columns = ["sample"], [[str(i) for i in samples]]
    table = run.samples
    if table is not None and table.labels is not None:
        header.append("label")
        columns.append([_class(run, table.labels[i]) for i in samples])
    if "prediction" in run.outcomes:
        header.append("prediction")
        columns.append([_class(run, run.outcomes["prediction"][i]) for i in samples])
    if table is not None and table.keys is not None:
        header.append("name")
        columns.append([_plain(table.keys[i]) for i in samples])
    return header, _rows(columns)


def _class(run: Run, label: Any) -> str:
    """The name of a class where it is known, else its number; of labels [K] those that hold."""
    if np.ndim(label):
        return ", ".join(_class(run, k) for k in np.flatnonzero(label == 1)) or "none"
    names = run.classes
    return _plain(names[label]) if names is not None and 0 <= label < len(names) else str(label)


def _rows(columns: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(text: str) -> str:
    """Text for a cell of a table with tabs between."""
    return "".join(c if c.isprintable() else " " for c in text)


def filter_sprites(layer: Layer, count: int) -> np.ndarray | None:
    """[count, 48, 48, 3] uint8: the strongest patch of each filter, else its kernel."""
    if "patches" in layer.holds and layer.patches.dtype == np.uint8 and layer.patches.shape[1]:
        return squares([layer.patches[i, 0] for i in range(count)], _SPRITE)
    weight = layer.weight
    if weight is None:
        return None
    return squares(diverging(kernel_tiles(weight[:count]), finite_peak(weight)), _SPRITE)


def sample_sprites(run: Run, samples: np.ndarray) -> np.ndarray | None:
    """[N, 48, 48, 3] uint8: the reduced pictures of samples; None where the file keeps none."""
    found = [input_picture(run, int(sample)) for sample in samples]
    if all(picture is None for picture in found):
        return None
    blank = np.full((1, 1, 3), 205, np.uint8)  # pale grey, so that it is seen as a point
    return squares([blank if picture is None else picture for picture in found], _SPRITE)
