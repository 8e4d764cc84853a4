"""P5: the whole extraction of a network, everything on, beside the fastest plain forward.

    python benchmarks/bench_extract.py [--model resnet18] [--samples 512] [--rounds 3] [--threads 2]

Each round runs the plain forward in both memory layouts and the extraction, one after the other, in
a process of its own with the same threads and freed memory kept throughout; the figures are medians
of the rounds' ratios, by the clock and in processor time, to the faster of the layouts.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import models
import torch
from apart import SMOKE, apart
from results import save

import fastconv
from fastconv.run.allocator import freed_memory_kept


def photographs(count: int, size: int) -> torch.Tensor:
    """[N, 3, size, size] in [0, 1]: random crops of real photographs."""
    from skimage import data

    sources = [
        torch.from_numpy(f()).permute(2, 0, 1) for f in (data.astronaut, data.coffee, data.chelsea)
    ]
    generator = torch.Generator().manual_seed(0)
    crops = torch.empty(count, 3, size, size)
    for i in range(count):
        image = sources[i % len(sources)]
        y, x = (
            int(torch.randint(0, n - size + 1, (), generator=generator)) for n in image.shape[1:]
        )
        crops[i] = image[:, y : y + size, x : x + size] / 255
    return crops


@dataclass
class Spent:
    """Seconds of the clock and of the processor."""

    wall: float
    processor: float


def spent(run: Callable[[], object]) -> Spent:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


def forward(model: torch.nn.Module, images: torch.Tensor, batch: int) -> None:
    with torch.inference_mode():
        for chunk in images.split(batch):
            model(chunk)


def extraction(model: torch.nn.Module, images: torch.Tensor, batch: int, out: Path) -> None:
    fastconv.extract(model, images, out, batch_size=batch, overwrite=True, progress=False).close()


def measure(name: str, samples: int, size: int, batch: int, rounds: int, threads: int) -> dict:
    torch.set_num_threads(threads)
    model = getattr(models, name)()
    last = getattr(models, name)().to(memory_format=torch.channels_last)
    images = photographs(samples, size)
    images_last = images.contiguous(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory(dir=".") as folder, freed_memory_kept():
        out = Path(folder) / "run.h5"
        runs: dict[str, Callable[[], object]] = {
            "contiguous": partial(forward, model, images, batch),
            "channels_last": partial(forward, last, images_last, batch),
            "extract": partial(extraction, model, images, batch, out),
        }
        forward(model, images[:batch], batch)  # warm up
        forward(last, images_last[:batch], batch)
        extraction(model, images[:batch], batch, out)
        table = [{key: spent(run) for key, run in runs.items()} for _ in range(rounds)]
        file_size = out.stat().st_size
    seconds = {key: statistics.median(row[key].wall for row in table) for key in runs}
    fastest = min("contiguous", "channels_last", key=seconds.__getitem__)
    ratios = [row["extract"].wall / row[fastest].wall for row in table]
    processor = [row["extract"].processor / row[fastest].processor for row in table]
    return {
        "samples": samples,
        "size": size,
        "batch": batch,
        "threads": threads,
        "fastest": fastest,
        "seconds": seconds,
        "ratio": statistics.median(ratios),
        "processor_ratio": statistics.median(processor),
        "ratios": ratios,
        "processor_ratios": processor,
        "file_mb": file_size / 2**20,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18", choices=["resnet18", "resnet50"])
    parser.add_argument("--samples", type=int, default=16 if SMOKE else 512)
    parser.add_argument("--size", type=int, default=64 if SMOKE else 224)
    parser.add_argument("--batch", type=int, default=8 if SMOKE else 64)
    parser.add_argument("--rounds", type=int, default=1 if SMOKE else 3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    result = apart(
        measure, args.model, args.samples, args.size, args.batch, args.rounds, args.threads
    )
    print(
        f"{args.model}: extract / fastest forward = {result['ratio']:.3f}, in processor time "
        f"{result['processor_ratio']:.3f}  {result}"
    )
    save(f"extract_{args.model}", result)


if __name__ == "__main__":
    main()
