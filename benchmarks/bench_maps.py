"""P6: activation maps to HDF5 with built-in filters only, beside h5py and other stores.

    python benchmarks/bench_maps.py [--samples 64] [--rounds 9]

Each round writes the same maps [N, 64, 56, 56] with every method, one after the other, to a new
file that is synced to the disk; figures are medians over the rounds of the ratio to the baseline,
h5py with gzip=4 and shuffle in one-sample chunks. The baseline writes the values that fastconv
keeps (rounded to 10 bits), which gzip packs faster and smaller than the raw ones; "raw" rows write
all bits. "by igzip" is fastconv with isal's deflate in place of its own encoder, as where the C++
library is missing: it says what the encoder is worth. `tofile` is the disk's own streaming rate, of
which the share is of uncompressed bytes. "worst" is the lowest ratio of any round. The ratio of
processor time is printed too: it holds on a busy machine, and says how much of the speed is not
owed to using every core.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from bench_extract import photographs
from results import save

from fastconv.store import codec
from fastconv.store.atomic import META_BLOCK

SMOKE = os.environ.get("FASTCONV_BENCH_SMOKE") == "1"
BASELINE = "h5py gzip=4 shuffle"


def make_maps(samples: int, size: int) -> dict[str, np.ndarray]:
    """A 7x7 convolution over photographs: dense, and after two activations, [N, 64, s, s]."""
    weight = torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    smooth = F.avg_pool2d(weight, 3, 1, 1)  # trained first layers are smooth
    dense = F.conv2d(photographs(samples, 4 * size) - 0.5, smooth, stride=4, padding=3)
    dense = dense / dense.std()
    return {"relu": dense.relu().numpy(), "gelu": F.gelu(dense).numpy(), "dense": dense.numpy()}


def fastconv_maps(path: Path, maps: np.ndarray, keepbits: int) -> None:
    chunk = codec.chunk_shape(maps.shape, 4, codec.MAP_ROWS)
    with h5py.File(path, "x", meta_block_size=META_BLOCK) as file, codec.Compressor() as compressor:
        dataset = codec.create_chunked(file, "maps", maps.shape, "<f4", chunk)
        writer = codec.ChunkWriter(dataset, compressor, keepbits=keepbits)
        for block in np.split(maps, range(16, len(maps), 16)):
            writer.append(block)
        writer.close()
        compressor.drain()


def igzip_maps(path: Path, maps: np.ndarray, keepbits: int) -> None:
    with mock.patch.object(codec, "_native", lambda: False):
        fastconv_maps(path, maps, keepbits)


def h5py_maps(path: Path, maps: np.ndarray, **filters: Any) -> None:
    with h5py.File(path, "x") as file:
        chunks = (1, *maps.shape[1:]) if filters else None
        dataset = file.create_dataset("maps", maps.shape, "<f4", chunks=chunks, **filters)
        for i, sample in enumerate(maps):
            dataset[i] = sample


def zarr_maps(path: Path, maps: np.ndarray) -> None:
    import zarr

    chunks = codec.chunk_shape(maps.shape, 4, codec.MAP_ROWS)
    zarr.create_array(str(path), shape=maps.shape, dtype="f4", chunks=chunks, zarr_format=3)[
        ...
    ] = maps


def tensorstore_maps(path: Path, maps: np.ndarray) -> None:
    import tensorstore

    chunks = codec.chunk_shape(maps.shape, 4, codec.MAP_ROWS)
    metadata = {
        "shape": maps.shape,
        "chunks": chunks,
        "dtype": "<f4",
        "compressor": {"id": "blosc", "cname": "lz4", "shuffle": 1},
    }
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": metadata,
        "create": True,
    }
    tensorstore.open(spec).result().write(maps).result()


def methods(raw: np.ndarray, rounded: np.ndarray) -> dict[str, Callable[[Path], None]]:
    gzip = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    found: dict[str, Callable[[Path], None]] = {
        "fastconv": lambda path: fastconv_maps(path, raw, 10),  # its rounding included
        "fastconv exact": lambda path: fastconv_maps(path, raw, 23),
        "fastconv by igzip": lambda path: igzip_maps(path, raw, 10),
        "fastconv exact by igzip": lambda path: igzip_maps(path, raw, 23),
        BASELINE: lambda path: h5py_maps(path, rounded, **gzip),
        f"{BASELINE} raw": lambda path: h5py_maps(path, raw, **gzip),
        "h5py lzf shuffle": lambda path: h5py_maps(path, rounded, compression="lzf", shuffle=True),
        "h5py uncompressed": lambda path: h5py_maps(path, raw),
        "tofile": raw.tofile,
    }
    for name, module, write in (
        ("zarr v3 default", "zarr", zarr_maps),
        ("tensorstore blosc lz4", "tensorstore", tensorstore_maps),
    ):
        try:
            __import__(module)
        except ImportError:
            print(f"{name}: not installed, left out")
            continue
        found[name] = lambda path, write=write: write(path, rounded)
    return found


def sync(path: Path) -> int:
    """Wait for the disk; returns the bytes on it."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    return sum(file.stat().st_size for file in files)


def check(path: Path, expected: np.ndarray) -> None:
    """What is read back by plain h5py is what was meant, before anything is timed."""
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["maps"][()], expected)


def measure(kind: str, raw: np.ndarray, rounds: int, folder: Path) -> list[dict[str, Any]]:
    rounded = codec.round_mantissa(raw, 10)
    todo = methods(raw, rounded)
    for name, expected in (
        ("fastconv", rounded),
        ("fastconv exact", raw),
        ("fastconv by igzip", rounded),
        (BASELINE, rounded),
    ):
        path = folder / "check.h5"
        todo[name](path)
        check(path, expected)
        path.unlink()
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    processor: dict[str, list[float]] = {name: [] for name in todo}
    size = {}
    for _ in range(rounds):
        for name, write in todo.items():
            path = folder / "maps.h5"
            began, busy = time.perf_counter(), time.process_time()
            write(path)
            size[name] = sync(path)
            seconds[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - busy)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    stream = seconds["tofile"]
    return [
        {
            "maps": kind,
            "method": name,
            "times_baseline": _median_ratio(seconds[BASELINE], took),
            "worst_round": min(a / b for a, b in zip(seconds[BASELINE], took, strict=True)),
            "times_baseline_cpu": _median_ratio(processor[BASELINE], processor[name]),
            "share_of_disk": _median_ratio(stream, took),
            "seconds": statistics.median(took),
            "mb_per_s": raw.nbytes / 1e6 / statistics.median(took),
            "bytes_per_value": size[name] / raw.size,
        }
        for name, took in seconds.items()
    ]


def _median_ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=9 if SMOKE else 64)
    parser.add_argument("--size", type=int, default=14 if SMOKE else 56)
    parser.add_argument("--rounds", type=int, default=1 if SMOKE else 9)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for kind, raw in make_maps(args.samples, args.size).items():
            rows += measure(kind, raw, args.rounds, Path(folder))
    columns = ("x baseline", "worst", "(cpu)", "MB/s", "of disk", "B/value")
    keys = ("times_baseline", "worst_round", "times_baseline_cpu", "mb_per_s", "share_of_disk")
    keys = (*keys, "bytes_per_value")
    print(f"{'maps':6} {'method':26} {' '.join(f'{column:>10}' for column in columns)}")
    for row in rows:
        figures = " ".join(f"{row[key]:10.2f}" for key in keys)
        print(f"{row['maps']:6} {row['method']:26} {figures}")
    save("maps", {"workers": codec.WORKERS, "samples": args.samples, "rows": rows})


if __name__ == "__main__":
    main()
