"""Time and memory of making the file of many parts, as a run of hundreds of processes leaves them.

    python benchmarks/bench_parts.py [--parts 1000 10000]

Each part holds one sample of a tiny network. Prints seconds and peak memory of what comes after the
last sample: reading the parts, merging them and writing the file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import torch
from cases import SMOKE
from torch import nn

from fastconv.data import open_data
from fastconv.run import save_clock
from fastconv.run.job import Job
from fastconv.run.loop import measure
from fastconv.run.options import Options
from fastconv.run.output_file import begin, now, write
from fastconv.run.recording import Recording
from fastconv.store.parts import PartsFolder

OPTIONS = {
    "stage": "conv", "topk": 3, "hits_per_sample": 1, "order": "largest", "stats": True,
    "quantiles": True, "patches": True, "samples": True, "maps": None, "maps_dtype": "rounded",
    "normalize": None, "batch_size": 1, "dtype": None, "backend": "auto", "shard": None,
}  # fmt: skip


def job(count: int) -> Job:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    source = open_data(torch.rand(count, 1, 12, 12))
    options = Options.create(length=count, **OPTIONS)
    return Job(model, source, options, None, torch.device("cpu"))


def make_parts(count: int, out: Path) -> None:
    save_clock.MIN_SECONDS = save_clock.COST_FACTOR = save_clock.ELAPSED_SHARE = 0
    with PartsFolder(out) as folder:
        begin(folder, job(count), resume=True)
        measure(job(count), folder, 0, progress=False)


def assemble(count: int, out: Path) -> None:
    work = job(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    with PartsFolder(out) as folder:
        recording = Recording(work, folder, range(count))
        assert not recording.todo
        write(out, work, recording, now(), overwrite=False)
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{count:6,} parts: {seconds:6.1f} s, {1000 * seconds / count:.2f} ms a part, "
        f"memory grows by {grown:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    counts = [10, 20] if SMOKE else [1000, 10_000]
    parser.add_argument("--parts", type=int, nargs="+", default=counts)
    for count in parser.parse_args().parts:
        with tempfile.TemporaryDirectory() as folder:
            for step in (make_parts, assemble):
                given = (count, Path(folder) / "run.h5")
                process = multiprocessing.Process(target=step, args=given)
                process.start()
                process.join()
                assert process.exitcode == 0


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
