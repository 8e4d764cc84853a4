"""Figures without a window, safe labels, grids of axes, and one style for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

SEQUENTIAL, DIVERGING = "viridis", "coolwarm"  # perceptually uniform; as in `fastconv.draw.heat`
INK, FAINT, ACCENT, WARNING = "#1c2330", "#c3c9d4", "#2f6fed", "#c8342b"
FONT = "DejaVu Sans"  # comes with matplotlib
_STYLE: Any = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "text.parse_math": False,  # names of layers, classes and files are text, never TeX
    "svg.hashsalt": "fastconv",  # the same ids each time
    "figure.dpi": 120,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure, and of nothing else."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(title: str, width: float, height: float) -> Figure:
    """A figure of a size in inches that lays itself out."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def axes_grid(figure: Figure, rows: int, columns: int, **options: Any) -> np.ndarray:
    """[rows, columns] axes."""
    return figure.subplots(rows, columns, squeeze=False, **options)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def text(name: object, length: int = 48) -> str:
    """A name as a short label of one line; what the font lacks as U+XXXX."""
    name = str(name)
    if len(name) > length:
        name = f"{name[: length - 12]}…{name[-11:]}"
    return "".join(
        c if c.isprintable() and ord(c) in _glyphs() else f"U+{ord(c):04X}" for c in name
    )


def say(axes: Axes, words: str) -> None:
    """Write into axes why nothing is drawn there."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, words, ha="center", va="center", wrap=True, transform=axes.transAxes)


def filter_ticks(axes: Axes, names: np.ndarray) -> None:
    """Name the rows of an image by filters: all where they fit, else some."""
    step = max(1, -(-len(names) // 40))
    axes.set_yticks(range(0, len(names), step), [str(n) for n in names[::step]], fontsize=7)
    axes.set_ylabel("filter")
