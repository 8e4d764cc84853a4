"""One picture of a run: weights, strongest patches and statistics of the first layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fastconv.draw.weights import kernel_pictures
from fastconv.export.summary import densities, most_selective
from fastconv.store.read_layer import Layer
from fastconv.store.reader import Run

LAYERS, FILTERS = 3, 8  # at most so many, from the first layer and the most selective filter on
INK, MUTED, FAINT = "#1c2330", "#667085", "#c3c9d4"
CARD, FRAME, ACCENT = "#f5f6f8", "#cfd6e2", "#2f6fed"
MARGIN, GAP, PAD = 0.35, 0.16, 0.1  # inches, as all lengths here
PATCHES = 1.5  # side of a block of 3 x 3 patches
WEIGHT, CURVE = 0.52, 0.42  # side of the weights, height of the histogram
HEAD, LAYER_HEAD, FOOT = 0.95, 0.42, 0.55
CARD_WIDTH = PATCHES + 2 * PAD
CARD_HEIGHT = WEIGHT + PATCHES + CURVE + 3 * PAD + 0.2


class _Page:
    """A figure measured in inches from its upper left corner."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, x: float, y: float, width: float, height: float):
        box = (x / self.width, 1 - (y + height) / self.height)
        axes = self.figure.add_axes((*box, width / self.width, height / self.height))
        axes.axis("off")
        return axes

    def text(self, x: float, y: float, text: str, **style) -> None:
        """Text whose baseline is at y."""
        self.figure.text(x / self.width, 1 - y / self.height, text, **{"color": INK, **style})

    def image(self, x: float, y: float, side: float, pixels: np.ndarray) -> None:
        self.axes(x, y, side, side).imshow(pixels, interpolation="nearest", aspect="auto")

    def card(self, x: float, y: float, width: float, height: float) -> None:
        axes = self.axes(x, y, width, height)
        axes.set(xlim=(0, width), ylim=(0, height))
        style = "round,pad=0,rounding_size=0.07"
        axes.add_patch(FancyBboxPatch((0, 0), width, height, boxstyle=style, fc=CARD, ec="none"))


def draw(run: Run, path: Path, what: str, *, verified: bool) -> None:
    """Write the picture of a run with patches, as a PNG.

    Args:
        what: the data, in words.
        verified: whether `fastconv.verify` has found everything right.
    """
    rcParams["font.family"] = "DejaVu Sans"
    names = [n for n in run.layers if "patches" in run[n].holds][:LAYERS]
    columns = min(FILTERS, max(run[name].info.channels for name in names))
    width = 2 * MARGIN + columns * CARD_WIDTH + (columns - 1) * GAP
    row = LAYER_HEAD + CARD_HEIGHT + 0.28
    page = _Page(width, HEAD + len(names) * row + FOOT)
    _title(page, run, what, verified=verified)
    for i, name in enumerate(names):
        _layer(page, HEAD + i * row, run[name], columns)
    _legend(page)
    page.figure.savefig(path, dpi=120)


def _title(page: _Page, run: Run, what: str, *, verified: bool) -> None:
    filters = sum(run[name].info.channels for name in run.layers)
    samples = run.samples
    count = "" if samples is None else f"{samples.count:,} samples · "
    kept = sum(int((run[n].topk.sample >= 0).sum()) for n in run.layers)
    state = "recomputed and verified" if verified else "NOT verified"
    page.text(MARGIN, 0.5, f"What a network sees in {what}", size=18, weight="bold")
    line = f"{count}{len(run.layers)} convolutions · {filters:,} filters · {kept:,} hits, {state}"
    page.text(MARGIN, 0.78, line, size=10, color=MUTED)


def _layer(page: _Page, top: float, layer: Layer, columns: int) -> None:
    info, stats = layer.info, layer.stats
    kernel = "x".join(map(str, info.kernel or ())) or "-"
    field = "x".join(str(f.size) for f in info.fields)
    page.text(MARGIN, top + 0.24, info.name, size=13, weight="bold")
    facts = (
        f"{info.channels} filters of {kernel}, each looks at {field} pixels; "
        f"{stats['positive'].mean():.0%} of the values are above 0; "
        f"{int(stats['dead'].sum())} filters are dead"
    )
    page.text(MARGIN + 0.115 * len(info.name) + 0.3, top + 0.24, facts, size=9.5, color=MUTED)
    shown = most_selective(layer)[:columns]
    edges, density = densities(layer, shown)
    for i, number in enumerate(shown):
        x = MARGIN + i * (CARD_WIDTH + GAP)
        _filter(page, x, top + LAYER_HEAD, layer, int(number), (edges, density[i]))


def _filter(
    page: _Page,
    x: float,
    y: float,
    layer: Layer,
    number: int,
    curve: tuple[np.ndarray, np.ndarray],
) -> None:
    """A card: weights and numbers, the strongest patches, the distribution of the values."""
    page.card(x, y, CARD_WIDTH, CARD_HEIGHT)
    x, y = x + PAD, y + PAD
    stats = layer.stats
    if layer.weight is not None:
        page.image(x, y, WEIGHT, kernel_pictures(layer.weight[[number]], _rgb(CARD))[0])
    words = x + WEIGHT + PAD
    page.text(words, y + 0.13, f"filter {number}", size=9, weight="bold")
    page.text(words, y + 0.31, f"mean {stats['mean'][number]:.2f}", size=7.5, color=MUTED)
    page.text(words, y + 0.47, f"max {stats['max'][number]:.2f}", size=7.5, color=MUTED)
    y += WEIGHT + PAD
    page.image(x, y, PATCHES, _patch_block(layer, number))
    y += PATCHES + PAD
    _curve(page, x, y, *curve, layer.topk.values[number])


def _curve(
    page: _Page, x: float, y: float, edges: np.ndarray, density: np.ndarray, hits: np.ndarray
) -> None:
    """The density of all values: grey up to 0, coloured above; ticks are the stored hits."""
    axes = page.axes(x, y, PATCHES, CURVE)
    height = np.sqrt(density / density.max()) if density.max() > 0 else density
    for above, colour in ((False, FAINT), (True, ACCENT)):
        chosen = (edges[:-1] >= 0) == above
        axes.bar(
            edges[:-1][chosen],
            height[chosen],
            width=np.diff(edges)[chosen],
            align="edge",
            color=colour,
        )
    axes.vlines(hits[np.isfinite(hits)], -0.22, -0.06, color=INK, lw=0.8)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(-0.25, 1.02))
    share = -edges[0] / (edges[-1] - edges[0])
    page.text(x + share * PATCHES, y + CURVE + 0.09, "0", size=6.5, color=MUTED, ha="center")


def _patch_block(layer: Layer, number: int, rows: int = 3) -> np.ndarray:
    """The strongest patches [H, W, 3] uint8, row by row, framed."""
    patches = layer.patches[number]  # [k, h, w, 3]
    empty = layer.topk.sample[number] < 0
    height, width = patches.shape[1:3]
    zoom = max(1, 160 // max(height, width))
    gap = max(6, max(height, width) * zoom // 14)
    step_y, step_x = height * zoom + gap, width * zoom + gap
    block = np.full((rows * step_y + gap, rows * step_x + gap, 3), _rgb(FRAME), np.uint8)
    for rank in range(min(len(patches), rows * rows)):
        if not empty[rank]:
            y, x = rank // rows * step_y + gap, rank % rows * step_x + gap
            tile = patches[rank].repeat(zoom, 0).repeat(zoom, 1)
            block[y : y + height * zoom, x : x + width * zoom] = tile
    return block


def _legend(page: _Page) -> None:
    lines = (
        "Each card: the weights of a filter (blue negative, red positive; in colour where it sees "
        "colour), the nine patches that excite it most, and how often each value occurs",
        "over all positions of all samples (square-root scale; blue: above 0). Ticks under the "
        "curve: the nine hits. Shown are the filters whose strongest hit stands out furthest.",
    )
    for i, line in enumerate(lines):
        page.text(MARGIN, page.height - FOOT + 0.2 + 0.17 * i, line, size=8, color=MUTED)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
