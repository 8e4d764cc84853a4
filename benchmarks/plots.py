"""Plots and tables of the figures kept under benchmarks/results/, one plot for every table.

    python benchmarks/plots.py [--machine NAME]

Writes docs/images/benchmarks/*.png and prints the tables in markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results import HERE, machine

IMAGES = HERE.parent / "docs" / "images" / "benchmarks"

Row = tuple[str, ...]  # cells; the first names the bar


class Table:
    """A table of which some columns are drawn as horizontal bars."""

    def __init__(self, name: str, title: str, columns: list[str], bar: float | None = None) -> None:
        self.name, self.title, self.columns, self.bar = name, title, columns, bar
        self.rows: list[Row] = []
        self.bars: list[tuple[str, dict[str, float]]] = []

    def add(self, label: str, cells: dict[str, str], bars: dict[str, float]) -> None:
        self.rows.append((label, *(cells.get(column, "-") for column in self.columns[1:])))
        self.bars.append((label, bars))

    def markdown(self) -> str:
        lines = ["| " + " | ".join(self.columns) + " |", "|---" * len(self.columns) + "|"]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows])

    def draw(self, folder: Path) -> Path:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        names = list(dict.fromkeys(name for _, bars in self.bars for name in bars))
        figure, axes = plt.subplots(figsize=(8, 0.8 + 0.26 * len(self.bars) * len(names) ** 0.5))
        height = 0.8 / len(names)
        for i, name in enumerate(names):
            at = [row + (i - (len(names) - 1) / 2) * height for row in range(len(self.bars))]
            shown = [bars.get(name, 0.0) for _, bars in self.bars]
            color = matplotlib.colormaps["viridis"](0.15 + 0.7 * i / max(1, len(names) - 1))
            axes.barh(at, shown, height, label=name, color=color)
        axes.set_yticks(range(len(self.bars)), [label for label, _ in self.bars], fontsize=8)
        axes.invert_yaxis()
        if self.bar is not None:
            axes.axvline(self.bar, color="black", linewidth=1, linestyle="--")
        axes.set_title(self.title, fontsize=10)
        axes.legend(fontsize=8)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.png"
        figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close(figure)
        return path


def conv_reduce(result: dict[str, Any]) -> Iterator[Table]:
    """P1, P2, P3: a table for every dtype, number of threads and set of layers."""
    for run in result["runs"]:
        kind = run.get("set", "public")
        kept = "kept: fused / alone"  # of runs in whose processes freed memory was not kept
        alone = kept if kept in run["geometric means"] else "fused / alone"
        shown = {"/ alone": alone, "packed / alone": "packed / alone", "chain /": "chain / fused"}
        shown["compiled /"] = "compiled chain / fused"
        if alone == kept:  # the others rest on page faults there
            shown = {"/ alone": alone}
        shown = {k: of for k, of in shown.items() if of in run["geometric means"]}
        threads = f"{run['threads']} thread" + "s" * (run["threads"] > 1)
        table = Table(
            f"conv_reduce_{run['dtype']}_{run['threads']}" + "_random" * (kind == "random"),
            f"conv_reduce / convolution alone, {run['dtype']}, {threads}, {kind} layers "
            "(less is better)",
            ["case", "ms", "GFLOP/s", "of the floor", *shown],
            bar=1.0,
        )
        for row in run["cases"]:
            least = min(v for k, v in row.items() if k.startswith("fused ") and k.endswith(" ms"))
            cells = {k: f"{row[of]:.2f}" for k, of in shown.items()}
            cells |= {"ms": f"{least:.2f}", "GFLOP/s": f"{row['GFLOP/s']:.0f}"}
            cells["of the floor"] = f"{row.get('share of floor', row.get('share of peak')):.0%}"
            table.add(row["case"], cells, {alone: row[alone]})
        means = run["geometric means"]
        cells = {k: f"**{means[of]:.2f}**" for k, of in shown.items()}
        table.add("geometric mean", cells, {alone: means[alone]})
        yield table


def channel_reduce(result: dict[str, Any]) -> Iterator[Table]:
    """P4: shares of the streaming read."""
    kinds = ["contiguous", "contiguous, histogram", "channels_last", "channels_last, histogram"]
    table = Table(
        "channel_reduce",
        "channel_reduce: share of the streaming-read bandwidth (more is better)",
        ["shape, dtype, threads", "read GB/s", *kinds],
        bar=0.7,
    )
    for row in result["cases"]:
        shape = "x".join(map(str, row["shape"]))
        cells = {"read GB/s": f"{row['read_GB_per_s']:.1f}"}
        cells |= {kind: f"{row[kind]:.0%}" for kind in kinds if kind in row}
        label = f"{shape} {row['dtype'].removeprefix('torch.')} {row['threads']}"
        table.add(label, cells, {k: row[k] for k in kinds if k in row})
    yield table


def extract(result: dict[str, Any], name: str) -> Iterator[Table]:
    """P5: seconds of the extraction and of the plain forward in both layouts."""
    table = Table(
        name,
        f"{name.removeprefix('extract_')}, {result['samples']} samples, {result['threads']} "
        "threads: seconds (less is better)",
        ["", "seconds", "/ fastest", "processor", "rounds"],
    )
    for key, value in result["seconds"].items():
        cells = {"seconds": f"{value:.1f}"}
        if key == "extract":
            cells |= {"/ fastest": f"**{result['ratio']:.2f}**"}
            cells |= {"processor": f"{result['processor_ratio']:.2f}"}
            cells |= {"rounds": ", ".join(f"{ratio:.2f}" for ratio in result["ratios"])}
        table.add("extraction" if key == "extract" else f"forward, {key}", cells, {"s": value})
    yield table


def planner(result: dict[str, Any]) -> Iterator[Table]:
    """Layers run fused and in place, over the same work in turn, for every network and threads."""
    ways = ("fused", "in place")
    for run, layers in result.items():
        table = Table(
            f"planner_{run.replace(',', '').replace(' ', '_')}",
            f"{run}: a layer fused, in place / the same work in turn (less is better)",
            ["layer", "channels x positions", "in turn, ms", *ways],
            bar=1.0,
        )
        for name, row in layers.items():
            cells = {"channels x positions": f"{row['channels']} x {row['positions']}"}
            cells |= {"in turn, ms": f"{row['separate'] * 1e3:.1f}"}
            cells |= {way: f"{row[f'{way} / separate']:.2f}" for way in ways}
            table.add(name, cells, {way: row[f"{way} / separate"] for way in ways})
        yield table


def maps(result: dict[str, Any]) -> Iterator[Table]:
    """P6: times faster than h5py, a table for every kind of maps."""
    for kind in dict.fromkeys(row["maps"] for row in result["rows"]):
        table = Table(
            f"maps_{kind}",
            f"{kind} maps to HDF5: times faster than h5py, gzip 4, shuffle (more is better)",
            ["method", "x h5py", "MB/s", "bytes a value"],
            bar=10.0,
        )
        for row in result["rows"]:
            if row["maps"] != kind:
                continue
            cells = {"x h5py": f"{row['times_baseline']:.1f}", "MB/s": f"{row['mb_per_s']:.0f}"}
            cells["bytes a value"] = f"{row['bytes_per_value']:.2f}"
            table.add(row["method"], cells, {"times": row["times_baseline"]})
        yield table


_KNOWN = {"maps": maps, "channel_reduce": channel_reduce, "planner": planner}


def tables_of(path: Path) -> Iterator[Table]:
    """The tables of one file of results; none where no table is known for it."""
    result = json.loads(path.read_text())["result"]
    if path.stem.startswith("extract_"):
        yield from extract(result, path.stem)
    elif (known := _KNOWN.get(path.stem)) is not None:
        yield from known(result)
    elif path.stem.startswith("conv_reduce"):
        yield from conv_reduce(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", default=machine(), help="a folder of benchmarks/results")
    parser.add_argument("--images", type=Path, default=IMAGES)
    options = parser.parse_args()
    for path in sorted((HERE / "results" / options.machine).glob("*.json")):
        commit = json.loads(path.read_text())["commit"]
        for table in tables_of(path):
            image = table.draw(options.images)
            print(f"## {table.title}\n\n{path.name}, commit {commit}, {image.name}\n")
            print(table.markdown() + "\n")


if __name__ == "__main__":
    main()
