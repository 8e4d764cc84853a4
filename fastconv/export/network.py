"""`fastconv.export.graph`: the network as DOT or SVG, its layers coloured by a statistic."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastconv.draw.heat import diverging, finite_peak, sequential
from fastconv.errors import InputError
from fastconv.export.needs import write_text
from fastconv.export.network_svg import ink_on, svg
from fastconv.export.summary import STATISTICS, layer_statistic
from fastconv.store.reader import Layer, Run

_WORDS = {
    "dead": "share of dead filters",
    "positive": "share of values above 0",
    "mean": "mean activation",
    "std": "mean standard deviation of the filters",
    "min": "least activation",
    "max": "greatest activation",
    "nonfinite": "share of NaN and infinite values",
}


class Node(NamedTuple):
    """A layer as it is drawn."""

    name: str
    lines: tuple[str, ...]  # written below the name
    value: float  # of the statistic
    colour: str  # "#rrggbb"


class Network(NamedTuple):
    """A network as it is drawn."""

    nodes: list[Node]  # in forward order
    edges: list[tuple[str, str]]
    traced: bool  # else the edges only follow the forward order
    statistic: str  # in words
    scale: list[tuple[float, str]]  # value and colour, ascending


def graph(run: Run, path: str | os.PathLike[str], *, colour: str = "positive") -> Path:
    """Draw the network of a run, its layers coloured by a statistic.

    An edge leads from a layer to each layer that reads what it gives, whatever lies between. Where
    the file does not hold how the layers are connected, they are drawn in forward order, and the
    picture says so. Needs no Graphviz; DOT files are for those who have it.

    Args:
        run: an opened run.
        path: the file to write, `.svg` or `.dot`; an existing one is replaced.
        colour: "positive", "dead", "mean", "std", "min", "max" or "nonfinite", of the whole layer.

    Returns:
        The file.

    Raises:
        InputError: another suffix or statistic.
        OutputError: the file cannot be written.
    """
    writers = {".svg": svg, ".dot": dot}
    suffix = Path(path).suffix.lower()
    if suffix not in writers:
        raise InputError(f"a graph is written as .svg or .dot, got {str(path)!r}")
    if colour not in STATISTICS:
        raise InputError(f"colour must be one of {', '.join(STATISTICS)}, got {colour!r}")
    return write_text(path, writers[suffix](_network(run, colour)))


def _network(run: Run, statistic: str) -> Network:
    layers = [run[name] for name in run.layers]
    values = np.array([layer_statistic(layer, statistic) for layer in layers])
    colours, scale = _colours(values, share=statistic in ("dead", "positive", "nonfinite"))
    nodes = [
        Node(layer.name, _facts(layer), float(value), colour)
        for layer, value, colour in zip(layers, values, colours, strict=True)
    ]
    edges = _traced(run)
    traced = edges is not None or len(nodes) == 1
    if edges is None:
        edges = list(pairwise(run.layers))
    return Network(nodes, edges, traced, _WORDS[statistic], scale)


def _traced(run: Run) -> list[tuple[str, str]] | None:
    """The edges that the file holds, None of an older one; backward ones are left out."""
    found = getattr(run, "graph", None)
    if not found:
        return None
    rank = {name: i for i, name in enumerate(run.layers)}
    known = [(a, b) for a, b in found if a in rank and b in rank and rank[a] < rank[b]]
    return list(dict.fromkeys(known))


def _facts(layer: Layer) -> tuple[str, ...]:
    info = layer.info
    kernel = f" {'x'.join(map(str, info.kernel))}" if info.kernel else ""
    size = "x".join(map(str, info.size))
    return f"{info.kind}{kernel}", f"{info.channels} filters{f', {size}' if size else ''}"


def _colours(values: np.ndarray, *, share: bool) -> tuple[list[str], list[tuple[float, str]]]:
    """Colours of the values, and of a scale: from 0 to 1 for shares, about 0 where signs differ."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if share:
        low, high = 0.0, 1.0
    elif low < 0 < high:
        high = finite_peak(values)
        low = -high
    elif low == high:
        low, high = low - 0.5, high + 0.5
    steps = np.linspace(low, high, 33)
    both = not share and low == -high

    def coloured(v: np.ndarray) -> list[str]:
        rgb = diverging(v, high) if both else sequential(v, low, high)
        return [f"#{bytes(c).hex()}" for c in rgb]

    return coloured(values), list(zip(steps.tolist(), coloured(steps), strict=True))


def dot(network: Network) -> str:
    """The network in the language of Graphviz."""
    note = "" if network.traced else "; layers in forward order, the file holds no connections"
    lines = [
        "digraph network {",
        f"  label={_quoted(f'colour: {network.statistic}{note}')};",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
    ]
    number = {node.name: i for i, node in enumerate(network.nodes)}
    for node in network.nodes:
        words = [node.name, *node.lines, f"{network.statistic}: {node.value:.4g}"]
        label = "\\n".join(_quoted(word)[1:-1] for word in words)
        style = f'fillcolor="{node.colour}", fontcolor="{ink_on(node.colour)}"'
        lines.append(f'  n{number[node.name]} [label="{label}", {style}];')
    lines += [f"  n{number[a]} -> n{number[b]};" for a, b in network.edges]
    return "\n".join([*lines, "}", ""])


def _quoted(words: str) -> str:
    """A string of DOT: backslashes and quotes escaped, control characters as spaces."""
    plain = "".join(c if c.isprintable() else " " for c in words)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
