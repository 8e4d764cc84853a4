"""The weights of a layer: kernels side by side, waveforms of 1-D ones, planes of 3-D ones."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastconv.draw.heat import (
    MAX_CHANNELS,
    columns_of,
    finite_peak,
    grid,
    kernel_tiles,
    strongest_channels,
)
from fastconv.export.plots.canvas import DIVERGING, FAINT, axes_grid, new_figure, text
from fastconv.store.reader import Layer

MAX_FILTERS, MAX_WAVEFORMS, MAX_LINES = 64, 16, 4


def kernels(layer: Layer) -> Figure | None:
    """The first filters of a layer on one scale with zero in its middle; None without weights."""
    weight = layer.weight
    if weight is None or 0 in weight.shape:
        return None
    if weight.ndim == 3 and weight.shape[2] > 1:
        return _waveforms(layer, weight)
    return _tiles(layer, weight)


def _title(layer: Layer, weight: np.ndarray, shown: int, channels: int) -> str:
    filters, of = weight.shape[:2]
    which = f"all {filters}" if shown == filters else f"first {shown} of {filters}"
    inputs = f"{of} input channels" if of > 1 else "one input channel"
    if channels < of:
        inputs = f"the {channels} strongest of {of} input channels"
    size = " x ".join(map(str, weight.shape[2:]))
    return f"{text(layer.name)}: kernels of {which} filters, {inputs}, kernel {size}"


def _tiles(layer: Layer, weight: np.ndarray) -> Figure:
    """2-D and 3-D kernels as one image, a tile a filter."""
    shown = weight[:MAX_FILTERS]
    tiles = kernel_tiles(shown)
    gap = max(3 if np.isnan(tiles).any() else 1, round(max(tiles.shape[1:]) / 8))
    columns = columns_of(len(tiles), tiles.shape[1] + gap, tiles.shape[2] + gap)
    picture = grid(tiles, columns, gap, np.nan)
    height = float(np.clip(7.6 * picture.shape[0] / picture.shape[1], 1.2, 9))
    channels = min(weight.shape[1], MAX_CHANNELS)
    figure = new_figure(_title(layer, weight, len(shown), channels), 9.5, height + 0.9)
    axes = figure.add_subplot()
    peak = finite_peak(shown)
    image = axes.imshow(picture, cmap=DIVERGING, vmin=-peak, vmax=peak, interpolation="nearest")
    step_y, step_x = tiles.shape[1] + gap, tiles.shape[2] + gap
    rows = -(-len(tiles) // columns)
    middle = gap + (np.array(tiles.shape[1:]) - 1) / 2
    axes.set_xticks(middle[1] + step_x * np.arange(columns), [f"+{i}" for i in range(columns)])
    axes.set_yticks(middle[0] + step_y * np.arange(rows), [str(columns * i) for i in range(rows)])
    axes.set(xlabel=_tile_words(weight), ylabel="filter (first of the row)")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="weight", shrink=0.8)
    return figure


def _tile_words(weight: np.ndarray) -> str:
    """The second axis, and what a tile holds."""
    if weight.ndim == 5:
        height, width = weight.shape[3:]
        inside = f"{weight.shape[2]} planes (z) of {height} x {width} across, input channels down"
    else:
        height, width = (1, *weight.shape[2:])[-2:]
        inside = f"{height} x {width} kernel pixels"
        inside += " of each input channel, row by row" if weight.shape[1] > 1 else ""
    return f"filter in the row (in a tile: {inside})"


def _waveforms(layer: Layer, weight: np.ndarray) -> Figure:
    shown = weight[:MAX_WAVEFORMS]
    lines = strongest_channels(shown, MAX_LINES)
    columns = columns_of(len(shown), 3, 4)
    rows = -(-len(shown) // columns)
    title = _title(layer, weight, len(shown), lines.shape[1])
    figure = new_figure(title, max(2.3 * columns, 6), 1.5 * rows + 1)
    axes = axes_grid(figure, rows, columns, sharex=True, sharey=True)
    peak = 1.05 * finite_peak(shown)
    for i, place in enumerate(axes.flat):
        if i >= len(lines):
            place.set_visible(False)
            continue
        place.axhline(0, color=FAINT, lw=0.8)
        place.plot(lines[i].T, lw=1)
        place.set(title=f"filter {i}", ylim=(-peak, peak))
        place.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    if lines.shape[1] == weight.shape[1] > 1:
        names = [f"channel {i}" for i in range(weight.shape[1])]
        axes[0, 0].legend(axes[0, 0].lines[1:], names, fontsize=6, frameon=False)
    figure.supxlabel("kernel position (input samples)")
    figure.supylabel("weight")
    return figure
