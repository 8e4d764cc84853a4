"""Activation maps: as heat maps over the input, and as surfaces."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastconv.draw.heat import finite_span
from fastconv.export.inputs import (
    ChosenMaps,
    chosen_maps,
    input_picture,
    input_size,
    pixel_centres,
    pixel_span,
)
from fastconv.export.plots.canvas import (
    ACCENT,
    FAINT,
    SEQUENTIAL,
    axes_grid,
    new_figure,
    text,
)
from fastconv.store.reader import Layer, Run

MAX_FILTERS, MAX_SAMPLES, MAX_PLANES, SURFACES = 4, 5, 3, 4


def maps(layer: Layer, run: Run) -> Figure | None:
    """Maps of the most selective filters on the samples that excite them; None without maps."""
    found = chosen_maps(layer, MAX_FILTERS, MAX_SAMPLES)
    if found is None:
        return None
    if found.values.ndim == 2:
        return _matrix(layer, found)
    rows, columns = found.values.shape[:2]
    lines = found.values.ndim == 3
    height, width = (1, 1) if lines else _plane(layer, found.values[0, 0])[0].shape
    row = 1.4 if lines else float(np.clip(2.1 * height / width, 0.8, 3))
    title = f"{text(layer.name)}: activation maps over the input"
    figure = new_figure(title, max(2.1 * columns + 1.5, 5.5), (row + 0.2) * rows + 0.8)
    axes = axes_grid(figure, rows, columns, sharex=True, sharey="row" if lines else True)
    for row, number in enumerate(found.filters):
        draw = _line_row if lines else _heat_row
        draw(axes[row], layer, run, found, row)
        axes[row, 0].set_ylabel(f"filter {number}\n{axes[row, 0].get_ylabel()}")
    for place, sample in zip(axes[0], found.samples, strict=True):
        place.set_title(f"sample {sample}")
    return figure


def _line_row(axes: np.ndarray, layer: Layer, run: Run, found: ChosenMaps, row: int) -> None:
    """1-D maps as lines over the input position."""
    x = pixel_centres(layer.info.fields[0], found.values.shape[2])
    low, high = finite_span(found.values[row])
    pad = 0.05 * (high - low)
    marker = "." if len(x) == 1 else None
    for place, values in zip(axes, found.values[row], strict=True):
        place.axhline(0, color=FAINT, lw=0.8)
        place.plot(x, values, color=ACCENT, lw=1, marker=marker)
        place.set_ylim(low - pad, high + pad)
        if row == len(found.filters) - 1:
            place.set_xlabel("input (samples)")
    axes[0].set_ylabel("activation")


def _heat_row(axes: np.ndarray, layer: Layer, run: Run, found: ChosenMaps, row: int) -> None:
    """2-D maps, or planes of 3-D ones side by side, on one scale, in input pixels."""
    low, high = finite_span(found.values[row])
    size, image = input_size(run)[-2:], None
    for place, sample, values in zip(axes, found.samples, found.values[row], strict=True):
        plane, left, right = _plane(layer, values)
        top, bottom = pixel_span(layer, len(layer.info.size) - 2)
        picture = input_picture(run, int(sample)) if values.ndim == 2 and len(size) == 2 else None
        if picture is not None:
            grey = picture.mean(-1)
            place.imshow(grey, cmap="gray", extent=(0, size[1], size[0], 0), vmin=0, vmax=255)
        image = place.imshow(
            plane,
            cmap=SEQUENTIAL,
            vmin=low,
            vmax=high,
            extent=(left, right, bottom, top),
            alpha=1.0 if picture is None else 0.6,
            interpolation="nearest",
        )
        if not np.isfinite(values).any():
            middle = {"ha": "center", "va": "center", "transform": place.transAxes}
            place.text(0.5, 0.5, "no value is finite", fontsize=7, **middle)
        if values.ndim == 2 and len(size) == 2:
            place.set(xlim=(0, size[1]), ylim=(size[0], 0))
        place.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        place.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4 if values.ndim == 2 else 2))
        if row == len(found.filters) - 1:
            words = "planes (z) across" if values.ndim == 3 else "x (input pixels)"
            place.set_xlabel(words)
    axes[0].set_ylabel("y (input pixels)")
    axes[0].figure.colorbar(image, ax=list(axes), label="activation")


def _plane(layer: Layer, values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """A flat picture of a map, and its left and right edge in input pixels."""
    left, right = pixel_span(layer, len(layer.info.size) - 1)
    if values.ndim == 2:
        return values, left, right
    planes = np.unique(np.linspace(0, len(values) - 1, MAX_PLANES).round().astype(int))
    apart = [np.pad(p, ((0, 0), (0, 1)), constant_values=np.nan) for p in values[planes]]
    flat = np.concatenate(apart, axis=1)[:, :-1]
    return flat, 0.0, (right - left) * flat.shape[1] / values.shape[2]


def _matrix(layer: Layer, found: ChosenMaps) -> Figure:
    """Maps of one value: filters by samples."""
    figure = new_figure(f"{text(layer.name)}: activations", 6, 3.5)
    axes = figure.add_subplot()
    low, high = finite_span(found.values)
    image = axes.imshow(found.values, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(found.samples)), [str(s) for s in found.samples])
    axes.set_yticks(range(len(found.filters)), [str(f) for f in found.filters])
    axes.set(xlabel="sample", ylabel="filter")
    figure.colorbar(image, ax=axes, label="activation")
    return figure


def surfaces(layer: Layer, run: Run) -> Figure | None:
    """Maps of the most selective filters as landscapes; None where they have no extent.

    Of 2-D and 3-D maps each filter on its strongest kept sample (the middle plane of 3-D ones); of
    1-D maps filters behind each other.
    """
    found = chosen_maps(layer, 12 if len(layer.info.size) == 1 else SURFACES, 1)
    if found is None or found.values.ndim < 3:
        return None
    values = found.values[:, 0]
    if values.ndim == 4:
        values = values[:, values.shape[1] // 2]
    flat = min(values.shape[1:]) < 2 or (values.ndim == 2 and len(values) < 2)
    if flat or not np.isfinite(values).any():
        return None
    title = f"{text(layer.name)}: activation over the input, sample {found.samples[0]}"
    if values.ndim == 2:
        return _filters_surface(layer, found.filters, values, title)
    columns = min(2, len(values))
    rows = -(-len(values) // columns)
    figure = new_figure(title, 4.6 * columns + 0.6, 3.8 * rows + 0.4)
    axes = axes_grid(figure, rows, columns, subplot_kw={"projection": "3d"})
    y, x = (_centres(layer, len(layer.info.size) - 2 + i) for i in range(2))
    for place, number, plane in zip(axes.flat, found.filters, values, strict=False):
        _surface(place, x, y, plane)
        place.set(xlabel="x (input pixels)", ylabel="y (input pixels)", title=f"filter {number}")
        place.invert_yaxis()
    for place in axes.flat[len(values) :]:
        place.remove()
    return figure


def _centres(layer: Layer, dimension: int) -> np.ndarray:
    first, last = pixel_span(layer, dimension)
    size = layer.info.size[dimension]
    return first + (np.arange(size) + 0.5) * (last - first) / size


def _filters_surface(layer: Layer, chosen: np.ndarray, values: np.ndarray, title: str) -> Figure:
    figure = new_figure(title, 7, 5)
    axes = figure.add_subplot(projection="3d")
    _surface(axes, _centres(layer, 0), np.arange(len(chosen)), values)
    axes.set(xlabel="input (samples)", ylabel="filter", yticks=range(len(chosen)))
    axes.set_yticklabels([str(number) for number in chosen], fontsize=7)
    return figure


def _surface(axes: Axes, x: np.ndarray, y: np.ndarray, heights: np.ndarray) -> None:
    low, high = finite_span(heights)
    grid_x, grid_y = np.meshgrid(x, y)
    shades = {"cmap": SEQUENTIAL, "vmin": low, "vmax": high, "linewidth": 0}
    flat = np.where(np.isfinite(heights), heights, low)
    axes.plot_surface(grid_x, grid_y, flat, rcount=64, ccount=64, **shades)  # type: ignore[attr-defined]
    axes.set_zlim(low, high)  # type: ignore[attr-defined]
    axes.set_zlabel("activation")  # type: ignore[attr-defined]
