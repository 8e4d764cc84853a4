"""Filters side by side: kernel, the patches that excite it most, distribution of its values."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastconv.draw.heat import finite_peak, finite_span, kernel_tiles
from fastconv.export.plots.canvas import (
    ACCENT,
    DIVERGING,
    FAINT,
    INK,
    SEQUENTIAL,
    axes_grid,
    new_figure,
    say,
    text,
)
from fastconv.export.summary import densities, most_selective
from fastconv.store.reader import Layer

MAX_FILTERS, MAX_PATCHES, MAX_LINES, MAX_PLANES = 8, 5, 3, 4


def filters(layer: Layer) -> Figure | None:
    """The most selective filters, a row each; None where the file has nothing of them to show."""
    columns = [
        draw
        for draw, needs in ((_kernel, "weights"), (_patches, "patches"), (_density, "histogram"))
        if needs in layer.holds
    ]
    if not columns:
        return None
    chosen = most_selective(layer)[:MAX_FILTERS]
    ranks = min(MAX_PATCHES, layer.patches.shape[1]) if "patches" in layer.holds else 0
    widths = [w for draw in columns for w in ([1.0] * ranks if draw is _patches else [1.3])]
    title = f"{text(layer.name)}: {_which(len(chosen), layer.info.channels)}"
    height = 1.25 * len(chosen) + 1.1
    figure = new_figure(title, max(1.35 * sum(widths) + 0.6, 5), height)
    axes = axes_grid(figure, len(chosen), len(widths), width_ratios=widths)
    at = 0
    for draw in columns:
        wide = ranks if draw is _patches else 1
        draw(axes[:, at : at + wide], layer, chosen)
        at += wide
    for row, number in zip(axes, chosen, strict=True):
        row[0].set_ylabel(f"filter {number}\n{row[0].get_ylabel()}".strip(), fontsize=8)
    return figure


def _which(shown: int, filters: int) -> str:
    if shown == filters:
        return "its filters" if filters > 1 else "its only filter"
    return f"the {shown} of {filters} filters whose strongest hit stands out furthest"


def _kernel(axes: np.ndarray, layer: Layer, chosen: np.ndarray) -> None:
    """The kernels on one scale about 0, in one column."""
    weight = np.asarray(layer.weight)[chosen]
    peak = finite_peak(weight)
    shades = {"cmap": DIVERGING, "vmin": -peak, "vmax": peak, "interpolation": "nearest"}
    image = None
    for i, place in enumerate(axes[:, 0]):
        if weight.ndim == 3 and weight.shape[2] > 1:
            place.axhline(0, color=FAINT, lw=0.8)
            place.plot(weight[i, :MAX_LINES].T, lw=1)
            place.set_ylim(-1.05 * peak, 1.05 * peak)
            place.set_ylabel("weight")
        else:
            image = place.imshow(kernel_tiles(weight[i : i + 1])[0], **shades)
            _bare(place)
    axes[0, 0].set_title("kernel")
    if image is None:
        axes[-1, 0].set_xlabel("kernel position", fontsize=7)
    else:
        bar = axes[0, 0].figure.colorbar(image, ax=list(axes[:, 0]), location="bottom", shrink=0.9)
        bar.set_label("weight", fontsize=7)
        bar.ax.tick_params(labelsize=6)


def _patches(axes: np.ndarray, layer: Layer, chosen: np.ndarray) -> None:
    """The strongest hits, a column a rank, titled by their value and sample."""
    held, hits = layer.patches, layer.topk if "topk" in layer.holds else None
    shown = np.stack([held[int(number)][: axes.shape[1]] for number in chosen])
    low, high = finite_span(shown)
    for row, number in enumerate(chosen):
        for rank, place in enumerate(axes[row]):
            if hits is not None and hits.sample[number, rank] < 0:
                say(place, "no hit")
                place.spines[:].set_visible(False)
                continue
            _patch(place, shown[row, rank], low, high)
            if hits is not None:
                value, sample = hits.values[number, rank], hits.sample[number, rank]
                place.set_title(f"{value:.3g}, sample {sample}", fontsize=7, pad=2)
    axes[-1, 0].set_xlabel(_patch_words(layer), fontsize=7)


def _patch_words(layer: Layer) -> str:
    """The unit of the axes of the patches."""
    size = layer.patches.shape[2:]  # [C, *size], or [h, w, 3] of pictures
    words = {1: "input channel", 2: "input (samples)"}
    if len(size) in words:
        return words[len(size)]
    field = " x ".join(str(f.size) for f in layer.info.fields)
    return f"{field} input pixels" + (", planes (z) across" if len(layer.info.fields) == 3 else "")


def _patch(axes: Axes, patch: np.ndarray, low: float, high: float) -> None:
    """A picture [h, w, 3] uint8, or the input [C, *size] that a hit saw."""
    if patch.dtype == np.uint8:
        axes.imshow(patch, interpolation="nearest")
        _bare(axes)
    elif patch.ndim <= 2:
        lines = np.atleast_2d(patch if patch.ndim == 2 else patch[None])
        axes.axhline(0, color=FAINT, lw=0.8)
        marker = "." if lines.shape[1] == 1 else None
        axes.plot(lines[:MAX_LINES].T, lw=1, marker=marker)
        pad = 0.05 * (high - low)
        axes.set_ylim(low - pad, high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axes.tick_params(labelsize=6)
    else:
        axes.imshow(_plane(patch), cmap=SEQUENTIAL, vmin=low, vmax=high, interpolation="nearest")
        _bare(axes)


def _plane(patch: np.ndarray) -> np.ndarray:
    """[C, (z,) y, x] as a mean over channels, some planes side by side."""
    flat = np.nan_to_num(patch).mean(axis=0)
    if flat.ndim == 2:
        return flat
    planes = np.unique(np.linspace(0, len(flat) - 1, MAX_PLANES).round().astype(int))
    return np.concatenate(
        [np.pad(p, ((0, 0), (0, 1)), constant_values=np.nan) for p in flat[planes]], 1
    )


def _density(axes: np.ndarray, layer: Layer, chosen: np.ndarray) -> None:
    """How often each value occurs: grey up to 0, coloured above; ticks are the stored hits."""
    edges, density = densities(layer, chosen)
    hits = layer.topk.values if "topk" in layer.holds else None
    below = int((edges[:-1] < 0).sum())  # bins of negative values
    for place, number, counts in zip(axes[:, 0], chosen, density, strict=True):
        total = counts.sum()
        if not total:
            say(place, "no value is finite")
            continue
        share = counts / total
        for first, last, colour in ((0, below, FAINT), (below, len(share), ACCENT)):
            if last > first:
                place.stairs(share[first:last], edges[first : last + 1], fill=True, color=colour)
        if hits is not None:
            found = hits[number][np.isfinite(hits[number])]
            place.plot(found, np.full(len(found), 0.0), "|", color=INK, ms=7, clip_on=False)
        place.set_xlim(edges[0], edges[-1])
        place.set_yscale("function", functions=(np.sqrt, np.square))
        place.set_ylim(0, share.max() * 1.05)
        place.yaxis.set_major_locator(MaxNLocator(nbins=3))
        place.tick_params(labelsize=6)
        place.yaxis.tick_right()
    axes[0, 0].set_title("share of values (√ scale)")
    axes[-1, 0].set_xlabel("activation", fontsize=7)


def _bare(axes: Axes) -> None:
    """A frame and no ticks: the axis below the last row tells the size."""
    axes.spines[:].set(visible=True, color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
