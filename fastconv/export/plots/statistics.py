"""Statistics per filter of a layer, and per layer of the whole network."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fastconv.draw.heat import finite_span
from fastconv.export.plots.canvas import (
    ACCENT,
    FAINT,
    INK,
    WARNING,
    axes_grid,
    new_figure,
    say,
    text,
)
from fastconv.export.summary import layer_quantiles, layer_statistic
from fastconv.store.reader import Layer

QUANTILES = [0.01, 0.25, 0.5, 0.75, 0.99]
_SHARE = PercentFormatter(xmax=1, decimals=0)


def filter_statistics(layer: Layer) -> Figure | None:
    """Distribution, share above 0 and non-finite values of filters; None without statistics."""
    if "stats" not in layer.holds:
        return None
    stats = layer.stats
    broken = bool(stats["nonfinite"].any())
    dead = int(stats["dead"].sum())
    words = f"{layer.info.channels} filters, {dead} dead (never above 0)"
    rows = 3 if broken else 2
    figure = new_figure(f"{text(layer.name)}: {words}", 9, 2.4 * rows + 0.8)
    axes = axes_grid(figure, rows, 1, sharex=True)[:, 0]
    x = np.arange(layer.info.channels)
    quantile = layer.quantile(QUANTILES).T if "histogram" in layer.holds else None
    ribbon = np.vstack([stats["min"], *([] if quantile is None else quantile), stats["max"]])
    _ribbon(axes[0], x, ribbon, stats["mean"])
    _shares(axes[1], x, stats["positive"], stats["dead"])
    if broken:
        _steps(axes[2], stats["nonfinite"], WARNING)
        axes[2].set_ylabel("NaN or infinite\n(values)")
    axes[-1].set_xlabel("filter")
    axes[-1].set_xlim(-0.5, len(x) - 0.5)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def network_statistics(layers: list[Layer]) -> Figure | None:
    """The same of each layer, in forward order; None where no layer has statistics."""
    known = [layer for layer in layers if "stats" in layer.holds]
    if not known:
        return None
    figure = new_figure("All layers, in forward order", max(7, 0.24 * len(known) + 2), 7.5)
    axes = axes_grid(figure, 3, 1, sharex=True)[:, 0]
    x = np.arange(len(known))
    low, high, mean, positive, dead = (
        np.array([layer_statistic(layer, name) for layer in known])
        for name in ("min", "max", "mean", "positive", "dead")
    )
    rows = [low, high]
    if all("histogram" in layer.holds for layer in known):
        rows[1:1] = np.array([layer_quantiles(layer, QUANTILES) for layer in known]).T
    _ribbon(axes[0], x, np.vstack(rows), mean)
    _shares(axes[1], x, positive, np.zeros(len(x), bool))
    _steps(axes[2], np.nan_to_num(dead), WARNING)
    axes[2].set(ylabel="dead filters\n(share of the layer)", ylim=(0, 1.02))
    axes[2].yaxis.set_major_formatter(_SHARE)
    if not np.nan_to_num(dead).any():
        centre = {"ha": "center", "va": "center", "transform": axes[2].transAxes}
        axes[2].text(0.5, 0.5, "no filter is dead", **centre)
    step = -(-len(known) // 60)
    names = [text(layer.name, 28) for layer in known[::step]]
    axes[2].set_xticks(x[::step], names, rotation=90 if len(names) > 6 else 0, fontsize=8)
    axes[2].set_xlim(-0.5, len(x) - 0.5)
    return figure


def _ribbon(axes: Axes, x: np.ndarray, quantiles: np.ndarray, mean: np.ndarray) -> None:
    """Nested bands from the extrema inwards, a line at the median, a point at the mean.

    Extrema may lie far out: the scale is linear near 0 and logarithmic beyond where they do.
    """
    axes.set_ylabel("activation")
    if not np.isfinite(quantiles).any():
        say(axes, "no value is finite")
        return
    pairs = len(quantiles) // 2
    for i in range(pairs):
        low, high = quantiles[i], quantiles[-1 - i]
        shade = {0: FAINT, 1: "#9db8f2", 2: ACCENT}[i]
        label = ("minimum to maximum", "1 % to 99 %", "25 % to 75 %")[i]
        _steps(axes, high, shade, low, label=label)
    if len(quantiles) % 2:
        axes.hlines(quantiles[pairs], x - 0.5, x + 0.5, color=INK, lw=1, label="median")
    axes.plot(x, mean, ".", color=WARNING, ms=4, label="mean")
    axes.axhline(0, color=INK, lw=0.5)
    inner = np.nanmax(np.abs(quantiles[1:-1])) if len(quantiles) > 2 else 0
    if inner > 0 and np.nanmax(np.abs(quantiles)) > 20 * inner:
        axes.set_yscale("symlog", linthresh=inner)
    else:
        low, high = finite_span(quantiles)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.legend(fontsize=7, ncols=5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))


def _shares(axes: Axes, x: np.ndarray, positive: np.ndarray, dead: np.ndarray) -> None:
    axes.set(ylabel="values above 0\n(share)", ylim=(-0.03, 1.03))
    axes.yaxis.set_major_formatter(_SHARE)
    if not np.isfinite(positive).any():
        say(axes, "no value is finite")
        return
    _steps(axes, np.nan_to_num(positive), ACCENT)
    if dead.any():
        axes.plot(x[dead], np.zeros(dead.sum()), "x", color=WARNING, ms=5, label="dead filter")
        axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))


def _steps(
    axes: Axes, top: np.ndarray, colour: str, bottom: np.ndarray | float = 0, label: str = ""
) -> None:
    """Filled steps from `bottom` to `top`, each one wide: quick for thousands, too."""
    edges = np.arange(len(top) + 1) - 0.5
    axes.stairs(top, edges, baseline=bottom, fill=True, facecolor=colour, label=label)
