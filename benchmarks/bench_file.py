"""The file of a run: its size, its datasets, the time to write and to open it, requests elsewhere.

    python benchmarks/bench_file.py [--network resnet18] [--samples 11]

A network of random weights over photographs; "open" is a process of its own that imports fastconv,
lists the layers and reads statistics, hits, pictures and weights of one filter; "elsewhere" is the
same without weights through a file system of fsspec whose reads are counted, for every layer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
import h5py
import models
from bench_extract import photographs
from fsspec.spec import AbstractFileSystem
from results import save

import fastconv
from fastconv.run.allocator import freed_memory_kept
from fastconv.store.writer import write_run

SMOKE = os.environ.get("FASTCONV_BENCH_SMOKE") == "1"
OPEN = """
import sys, fastconv
with fastconv.open(sys.argv[1]) as run:
    layer = run[run.layers[len(run.layers) // 2]]
    layer.stats["mean"], layer.topk, layer.patches[0], layer.weight[0]
"""


class Counted(AbstractFileSystem):
    """Files of this machine, whose reads are noted."""

    protocol = "counted"
    reads: list[int] = []  # noqa: RUF012 - one file is read at a time

    def info(self, path: str, **options: object) -> dict[str, object]:
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def cat_file(self, path: str, start: int = 0, end: int = 0, **options: object) -> bytes:
        self.reads.append(end - start)
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)


def datasets(path: Path) -> int:
    """Datasets of a file, each counted once however many names it has."""
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None
        )
    return len(found)


def write_again(path: Path, rounds: int) -> float:
    """Median seconds to write everything again from memory."""
    seconds, again = [], path.with_name("again.h5")
    with fastconv.open(path) as run, freed_memory_kept():
        results = [run[name].result() for name in run.layers]
        for result in results:
            result.patches = result.patches[()]
        for _ in range(rounds):
            began = time.perf_counter()
            write_run(again, run.config, results, samples=run.samples, overwrite=True)
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def open_once(path: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", OPEN, path], check=True)
    return time.perf_counter() - began


def elsewhere(path: Path) -> list[tuple[int, int]]:
    """Requests and bytes of opening, listing the layers, and a filter: of each layer in turn."""
    fsspec.register_implementation("counted", Counted, clobber=True)
    found: list[tuple[int, int]] = []
    with fastconv.open(path) as run:
        names = run.layers
    for name in names:
        Counted.reads.clear()
        with fastconv.open(f"counted://{path}") as run:
            layer = run[name]
            layer.stats["mean"], layer.topk, layer.patches[0]
        found.append((len(Counted.reads), sum(Counted.reads)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=("resnet18", "resnet50"), default="resnet18")
    parser.add_argument("--samples", type=int, default=11)
    parser.add_argument("--size", type=int, default=64 if SMOKE else 224)
    parser.add_argument("--rounds", type=int, default=1 if SMOKE else 5)
    arguments = parser.parse_args()
    model = getattr(models, arguments.network)()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        images = photographs(arguments.samples, arguments.size)
        fastconv.extract(model, images, path, progress=False).close()
        requests, fetched = zip(*elsewhere(path), strict=True)
        result = {
            "network": arguments.network,
            "samples": arguments.samples,
            "bytes": path.stat().st_size,
            "datasets": datasets(path),
            "write_seconds": write_again(path, arguments.rounds),
            "open_seconds": statistics.median(open_once(path) for _ in range(arguments.rounds)),
            "requests": statistics.median(requests),
            "requests_at_most": max(requests),
            "bytes_fetched": statistics.median(fetched),
            "bytes_fetched_at_most": max(fetched),
        }
    print(
        f"{result['network']}, {result['samples']} samples: {result['bytes'] / 1e6:.1f} MB, "
        f"{result['datasets']} datasets; written in {result['write_seconds']:.2f} s, opened in "
        f"{result['open_seconds']:.2f} s; one filter "
        f"elsewhere: {result['requests']:.0f} requests, {result['bytes_fetched'] / 1e6:.2f} MB; "
        f"at most {max(requests)}, {max(fetched) / 1e6:.2f} MB"
    )
    save(f"file-{arguments.network}", result)


if __name__ == "__main__":
    main()
