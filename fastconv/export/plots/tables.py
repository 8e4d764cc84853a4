"""Class selectivity and responses to conditions, from the tables of `fastconv.insight`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fastconv.draw.heat import finite_peak
from fastconv.export.plots.canvas import (
    ACCENT,
    DIVERGING,
    SEQUENTIAL,
    axes_grid,
    filter_ticks,
    new_figure,
    text,
)

MAX_FILTERS = 64


def class_selectivity(name: str, table: Any) -> Figure | None:
    """Filters by classes: effect of each class on each filter, and how selective a filter is.

    Args:
        name: of the layer.
        table: its rows of `fastconv.insight.classes`.
    """
    if not len(table):
        return None
    effect = table.pivot(index="filter", columns="class", values="effect")
    selectivity = table.groupby("filter")["selectivity"].max().reindex(effect.index)
    best = selectivity.sort_values(ascending=False, kind="stable").index[:MAX_FILTERS]
    shown = effect.loc[best]
    preferred = np.argmax(np.nan_to_num(shown.to_numpy(np.float64), nan=-np.inf), axis=1)
    shown = shown.iloc[np.argsort(preferred, kind="stable")]
    values = shown.to_numpy(np.float64)
    figure = new_figure(
        f"{text(name)}: how classes excite {_count(len(shown), len(effect))}",
        max(6.5, 0.28 * values.shape[1] + 4),
        max(3.2, 0.14 * len(shown) + 1.6),
    )
    axes = axes_grid(figure, 1, 2, width_ratios=[3, 1])[0]
    peak = finite_peak(values)
    image = axes[0].imshow(values, cmap=DIVERGING, vmin=-peak, vmax=peak, aspect="auto")
    _columns(axes[0], [text(c, 20) for c in shown.columns])
    axes[0].set_xlabel("class")
    filter_ticks(axes[0], shown.index.to_numpy())
    figure.colorbar(image, ax=axes[0], label="effect (standard deviations)")
    axes[1].barh(range(len(shown)), selectivity.loc[shown.index], color=ACCENT)
    axes[1].set(xlabel="selectivity for its class", xlim=(min(0, selectivity.min()), 1), yticks=[])
    axes[1].set_ylim(len(shown) - 0.5, -0.5)
    return figure


def condition_responses(name: str, table: Any) -> Figure | None:
    """Filters by conditions: mean change, and invariance; rows of `fastconv.insight.responses`."""
    if not len(table):
        return None
    names = list(dict.fromkeys(table["condition"]))
    change, invariance = (
        table.pivot(index="filter", columns="condition", values=column)[names]
        for column in ("mean_change", "invariance")
    )
    order = change.abs().max(axis=1).sort_values(ascending=False, kind="stable").index
    order = order[:MAX_FILTERS]
    figure = new_figure(
        f"{text(name)}: what conditions change in {_count(len(order), len(change))}",
        max(7.0, 0.6 * len(names) + 5),
        max(3.2, 0.14 * len(order) + 1.6),
    )
    axes = axes_grid(figure, 1, 2, sharey=True)[0]
    values = change.loc[order].to_numpy(np.float64)
    peak = finite_peak(values)
    drawn = (
        (values, {"cmap": DIVERGING, "vmin": -peak, "vmax": peak}, "change of the mean activation"),
        (invariance.loc[order], {"cmap": SEQUENTIAL, "vmin": 0, "vmax": 1}, "invariance (0 to 1)"),
    )
    for place, (shades, style, label) in zip(axes, drawn, strict=True):
        image = place.imshow(np.asarray(shades, np.float64), aspect="auto", **style)
        _columns(place, [text(c, 20) for c in names])
        place.set_xlabel("condition")
        figure.colorbar(image, ax=place, label=label)
    filter_ticks(axes[0], order.to_numpy())
    return figure


def _count(shown: int, filters: int) -> str:
    if shown == filters:
        return f"its {filters} filters" if filters > 1 else "its only filter"
    return f"the {shown} of {filters} filters that differ most"


def _columns(axes: Any, names: list[str]) -> None:
    step = -(-len(names) // 40)
    upright = len(names) > 12 or max(map(len, names)) > 4
    turn = {"rotation": 90} if upright else {}
    axes.set_xticks(range(0, len(names), step), names[::step], fontsize=7, **turn)
