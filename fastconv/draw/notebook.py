"""How a run, a layer and a filter show themselves in a notebook: small HTML, every name escaped.

No script, no style sheet, nothing from elsewhere; text takes the colours of the notebook.
"""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from fastconv.draw.heat import (
    columns_of,
    diverging,
    enlarge,
    finite_peak,
    grid,
    kernel_tiles,
    png,
    squares,
)
from fastconv.errors import InputError

_LAYERS, _KERNELS, _FILTERS, _HITS = 40, 32, 6, 6  # at most so many are shown
_SIDE, _TILE, _WHITE = 300, 44, 255  # pixels of kernels together, and of a patch


def _shown(draw: Callable[..., str]) -> Callable[..., str | None]:
    """None instead of an error where the run is closed: the notebook then shows the plain text."""

    @functools.wraps(draw)
    def drawn(*arguments: Any) -> str | None:
        try:
            return draw(*arguments)
        except InputError:
            return None

    return drawn


@_shown
def run_html(run: Any) -> str:
    """A table of the layers of a `fastconv.Run`."""
    table = run.samples
    count = "" if table is None else f", {table.count:,} samples"
    head = ("layer", "kind", "filters", "output", "field", "dead", "values above 0")
    rows = [_layer_row(run[name]) for name in run.layers[:_LAYERS]]
    more = len(run.layers) - len(rows)
    foot = f"<p>and {more:,} more: run.layers</p>" if more > 0 else ""
    title = f"<p><b>{escape(str(run.path))}</b>: {len(run.layers):,} layers{count}</p>"
    return f"<div>{title}{_table(head, rows)}{foot}</div>"


def _layer_row(layer: Any) -> list[str]:
    info = layer.info
    row = [info.name, info.kind, f"{info.channels:,}", _times(info.size)]
    row.append(_times(field.size for field in info.fields))
    if "stats" not in layer.holds:
        return [*row, "-", "-"]
    stats = layer.stats
    known = stats["count"] > 0
    share = f"{stats['positive'][known].mean():.0%}" if known.any() else "-"
    return [*row, f"{int(stats['dead'].sum()):,}", share]


@_shown
def layer_html(layer: Any) -> str:
    """A `fastconv.Layer`: what it is, its kernels, the strongest patches of its first filters."""
    info = layer.info
    facts = (
        f"{info.kind}, {info.channels:,} filters, stage {info.stage}, output {_times(info.size)}"
    )
    parts = [f"<p><b>{escape(info.name)}</b>: {escape(facts)}</p>"]
    parts.append(f"<p>holds {escape(', '.join(layer.holds))}</p>")
    if layer.weight is not None and layer.weight.size:
        words = f"kernels of the first {min(info.channels, _KERNELS)} filters"
        parts.append(_image(_kernels(layer.weight[:_KERNELS]), words))
    shown = min(info.channels, _FILTERS)
    strips = [_strip(layer, i) for i in range(shown)]
    if all(strip is not None for strip in strips):
        picture = np.concatenate([strip for strip in strips if strip is not None])
        parts.append(_image(picture, f"strongest patches of the first {shown} filters"))
    return f"<div>{''.join(parts)}</div>"


@_shown
def filter_html(layer: Any, index: int) -> str:
    """One filter of a layer: its statistics, its kernel and its strongest patches."""
    parts = [f"<p><b>{escape(layer.info.name)}</b>, filter {index}</p>"]
    if "stats" in layer.holds:
        names = ("mean", "std", "min", "max", "positive")
        stats = layer.stats
        parts.append(_table(names, [[f"{stats[name][index]:.4g}" for name in names]]))
    weight = layer.weight_of(index)
    if weight is not None and weight.size:
        parts.append(_image(_kernels(weight[None]), f"kernel of filter {index}"))
    strip = _strip(layer, index)
    if strip is not None:
        parts.append(_image(strip, f"strongest patches of filter {index}"))
    return f"<div>{''.join(parts)}</div>"


def _kernels(weight: np.ndarray) -> np.ndarray:
    """Kernels on one scale about 0, [H, W, 3] uint8."""
    tiles = kernel_tiles(weight)
    coloured = diverging(tiles, finite_peak(weight))
    coloured[np.isnan(tiles)] = _WHITE
    gap = 2
    columns = columns_of(len(tiles), tiles.shape[1] + gap, tiles.shape[2] + gap)
    if len(tiles) == 1:
        return enlarge(coloured[0], _SIDE // 3)
    return enlarge(grid(coloured, columns, gap, _WHITE), _SIDE)


def _strip(layer: Any, index: int) -> np.ndarray | None:
    """The strongest patches of a filter side by side; None where they are no pictures."""
    if (
        "patches" not in layer.holds
        or layer.patches.dtype != np.uint8
        or not layer.patches.shape[1]
    ):
        return None
    tiles = squares(layer.patches[index][:_HITS], _TILE)
    return grid(tiles, len(tiles), 2, _WHITE)


def _image(picture: np.ndarray, words: str) -> str:
    data = b64encode(png(picture)).decode()
    return (
        f'<p>{escape(words)}<br><img alt="{escape(words)}" src="data:image/png;base64,{data}"></p>'
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(word)}</th>' for word in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _times(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes)) or "-"
