"""`fastconv inspect`: a file as tables: its layers, the filters of one, the hits of a filter."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastconv.cli.table import shorten, table
from fastconv.errors import InputError

if TYPE_CHECKING:
    from fastconv.store.read_layer import Hits, Layer
    from fastconv.store.reader import Run

NONE = "-"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="RUN.h5")
    parser.add_argument("layer", nargs="?", metavar="LAYER", help="show its filters")
    parser.add_argument("filter", nargs="?", type=int, metavar="FILTER", help="show its hits")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import fastconv

    with fastconv.open(arguments.file) as opened:
        if arguments.layer is None:
            print(_layers(opened))
        elif arguments.filter is None:
            print(_filters(opened[arguments.layer]))
        else:
            print(_hits(opened, opened[arguments.layer], arguments.filter))
    return 0


def _layers(run: Run) -> str:
    """One row a layer."""
    headings = ("layer", "filters", "output", "field", "dead", "sparsity")
    rows = [_layer_row(run[name], run.order) for name in run.layers]
    text = table((*headings, "strongest", "filter", "sample", "position"), rows, left=(0, 9))
    return (
        f"{_title(run)}\n\n{text}\n\n"
        "dead: filters that are never above 0; sparsity: mean share of values that are 0 or below"
    )


def _title(run: Run) -> str:
    samples = run.samples
    count = NONE if samples is None else f"{samples.count:,}"
    stages = ", ".join(sorted({run[name].info.stage for name in run.layers}))
    return f"{run.path}: {len(run.layers)} layers, {count} samples, stage {stages}"


def _layer_row(layer: Layer, order: str) -> list[str]:
    info = layer.info
    row = [info.name, f"{info.channels:,}", times(info.size), times(f.size for f in info.fields)]
    row += _dead_and_sparse(layer)
    hits = layer.topk if "topk" in layer.holds else None
    if hits is None or not (hits.sample[:, 0] >= 0).any():
        return row + [NONE] * 4
    strongest = np.nanargmin if order == "smallest" else np.nanargmax
    best = int(strongest(hits.values[:, 0]))
    return row + [number(hits.values[best, 0]), str(best), *_place(hits, best, 0)]


def _dead_and_sparse(layer: Layer) -> list[str]:
    if "stats" not in layer.holds:
        return [NONE] * 2
    stats = layer.stats
    sparsity = 1 - np.nanmean(stats["positive"]) if stats["count"].any() else np.nan
    return [str(int(stats["dead"].sum())), percent(sparsity)]


def _filters(layer: Layer) -> str:
    """One row a filter."""
    columns: dict[str, Sequence[str]] = {"filter": [str(i) for i in range(layer.info.channels)]}
    if "stats" in layer.holds:
        stats = layer.stats
        columns |= {name: [number(v) for v in stats[name]] for name in ("mean", "std", "min")}
        if "histogram" in layer.holds:
            columns["median"] = [number(v) for v in layer.quantile(0.5)[:, 0]]
        columns["max"] = [number(v) for v in stats["max"]]
        columns["sparsity"] = [percent(1 - v) for v in stats["positive"]]
        if stats["nonfinite"].any():
            columns["not finite"] = [f"{v:,}" for v in stats["nonfinite"]]
    if "topk" in layer.holds:
        hits = layer.topk
        places = [_place(hits, i, 0) for i in range(layer.info.channels)]
        columns["strongest"] = [number(v) for v in hits.values[:, 0]]
        columns["sample"] = [place[0] for place in places]
        columns["position"] = [place[1] for place in places]
    rows = list(zip(*columns.values(), strict=True))
    left = tuple(i for i, name in enumerate(columns) if name == "position")
    return f"{_describe(layer)}\n\n{table(tuple(columns), rows, left)}"


def _hits(run: Run, layer: Layer, filter_index: int) -> str:
    """One row a hit."""
    if not 0 <= filter_index < layer.info.channels:
        raise InputError(
            f"{layer.name} has filters 0 to {layer.info.channels - 1}, got {filter_index}"
        )
    keys = None if run.samples is None else run.samples.keys
    shown = {"hits": layer.topk}
    if "bottomk" in layer.holds:
        shown = {"hits of the largest values": layer.topk, "of the smallest": layer.bottomk}
    parts = [_describe(layer)]
    for words, hits in shown.items():
        rows = _hit_rows(hits, filter_index, keys)
        headings = ["rank", "value", "sample", "position", "box in the input"]
        text = table(headings if keys is None else [*headings, "name"], rows, left=(3, 4, 5))
        parts.append(f"filter {filter_index}: {len(rows)} {words}\n\n{text}")
    return "\n".join(parts[:2]) + "".join(f"\n\n{part}" for part in parts[2:])


def _hit_rows(hits: Hits, filter_index: int, keys: Sequence[str] | None) -> list[list[str]]:
    rows = []
    for rank in np.flatnonzero(hits.sample[filter_index] >= 0):
        sample, position = _place(hits, filter_index, int(rank))
        box = ", ".join(f"{a}:{b}" for a, b in hits.box[filter_index, rank]) or NONE
        row = [str(rank), number(hits.values[filter_index, rank]), sample, position, box]
        rows.append(row if keys is None else [*row, shorten(keys[int(sample)], 44)])
    return rows


def _describe(layer: Layer) -> str:
    """What the layer is, and what it sees: two lines."""
    info = layer.info
    what = [f"{info.name}: {info.kind}, {info.channels} filters", f"stage {info.stage}"]
    if info.measured_by is not None:
        what.append(f"measured by {info.measured_by}")
    sees = [f"receptive field {times(f.size for f in info.fields)} ({info.status})"]
    if info.kernel is not None:
        sees.insert(0, f"kernel {times(info.kernel)}")
    sees.append(f"output {times(info.size)}")
    return f"{', '.join(what)}\n{', '.join(sees)}"


def _place(hits: Hits, filter_index: int, rank: int) -> tuple[str, str]:
    """Sample and position of a hit."""
    sample = int(hits.sample[filter_index, rank])
    if sample < 0:
        return NONE, NONE
    return str(sample), ", ".join(map(str, hits.position[filter_index, rank])) or NONE


def number(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.4g}"


def percent(share: float) -> str:
    return NONE if np.isnan(share) else f"{share:.0%}"


def times(sizes: object) -> str:
    return "x".join(map(str, sizes)) or NONE  # type: ignore[call-overload]
