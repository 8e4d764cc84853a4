"""Two processes of one thread against one: two ranks of torchrun, and two tasks of Ray.

    python benchmarks/bench_ranks.py [--samples 512] [--rounds 3]

ResNet-18 over photographs. A run of few samples tells what starting and ending cost, so there are
two figures: samples a second of a whole command, and of the samples beyond the few. The efficiency
is that of two processes over twice that of one. All files must hold the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import models
import torch
from bench_extract import photographs
from cases import SMOKE
from results import save
from torch.utils.data import Dataset

import fastconv

PHOTOGRAPHS = 48  # different ones, which repeat: every process makes them anew
BATCH = 4 if SMOKE else 32
SIZE = 64 if SMOKE else 224
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENGINES = {
    "one process": ([], "local"),
    "2 ranks": (TORCHRUN, "none"),
    "2 Ray tasks": ([], "ray:2"),
}


class Photographs(Dataset):
    """`count` photographs, some of which are equal."""

    def __init__(self, count: int):
        self.count, self.held = count, photographs(min(count, PHOTOGRAPHS), SIZE)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.held[index % len(self.held)]


def work(out: str, samples: int, engine: str) -> None:
    """What a process that was started does."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # the classifier has random weights, which must be equal
    chosen = None if engine == "none" else engine
    options = {"batch_size": BATCH, "progress": False, "thumbnails": False, "engine": chosen}
    fastconv.extract(models.resnet18(), Photographs(samples), out, **options).close()


def command(name: str, out: Path, samples: int) -> float:
    """Seconds of a whole command."""
    launcher, engine = ENGINES[name]
    program = [sys.executable, *launcher, __file__, "--work", out, str(samples), engine]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    began = time.perf_counter()
    subprocess.run(program, check=True, env=environment, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(
    names: list[str], samples: int, few: int, folder: Path
) -> dict[str, tuple[float, float]]:
    """One command after the other."""
    found, digests = {}, set()
    for name in names:
        outs = folder / "few.h5", folder / "all.h5"
        found[name] = command(name, outs[0], few), command(name, outs[1], samples)
        with fastconv.open(outs[1]) as run:
            digests.add(run.digest())
        for out in outs:
            out.unlink()
    if len(digests) != 1:
        raise SystemExit("the files differ")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=24 if SMOKE else 512)
    parser.add_argument("--rounds", type=int, default=1 if SMOKE else 3)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        out, samples, engine = arguments.work
        work(out, int(samples), engine)
        return
    names = [n for n in ENGINES if "Ray" not in n or importlib.util.find_spec("ray")]
    samples, few = arguments.samples, 2 * BATCH
    with tempfile.TemporaryDirectory() as folder:
        rounds = [measure(names, samples, few, Path(folder)) for _ in range(arguments.rounds)]
    result = {"network": "resnet18", "size": SIZE, "samples": samples, "batch_size": BATCH}
    one = names[0]
    for name in names:
        whole = statistics.median(r[one][1] / r[name][1] for r in rounds)
        beyond = statistics.median(
            (r[one][1] - r[one][0]) / (r[name][1] - r[name][0]) for r in rounds
        )
        seconds = statistics.median(r[name][1] for r in rounds)
        rate = (samples - few) / statistics.median(r[name][1] - r[name][0] for r in rounds)
        processes = 1 if name == one else 2
        result[name] = {
            "seconds": seconds,
            "seconds_of_few": statistics.median(r[name][0] for r in rounds),
            "samples_per_second": samples / seconds,
            "samples_per_second_without_start": rate,
            "efficiency": whole / processes,
            "efficiency_without_start": beyond / processes,
        }
        print(
            f"{name:12} {seconds:6.1f} s for {samples} samples, {samples / seconds:6.1f}/s, "
            f"efficiency {whole / processes:4.0%}; without start {rate:6.1f}/s, "
            f"{beyond / processes:4.0%}"
        )
    save("ranks", result)


if __name__ == "__main__":
    main()
