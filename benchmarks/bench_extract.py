"""P5: the whole extraction of ResNet-18, everything on, beside the plain eager forward.

    python benchmarks/bench_extract.py [--model resnet18] [--samples 512] [--rounds 3]

Each round runs the plain forward (contiguous input, as a user's loop would) and the extraction,
one after the other, in one process with the same threads; the figure is the median of the rounds'
ratios. Beside it stands what measuring adds to the fastest forward that was found: channels last,
with freed memory kept, as an extraction runs it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import models
import torch
from results import save

import fastconv
from fastconv.run.allocator import freed_memory_kept

SMOKE = os.environ.get("FASTCONV_BENCH_SMOKE") == "1"


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


def plain(model: torch.nn.Module, images: torch.Tensor, batch: int) -> float:
    began = time.perf_counter()
    with torch.inference_mode():
        for chunk in images.split(batch):
            model(chunk)
    return time.perf_counter() - began


def fastest(model: torch.nn.Module, images: torch.Tensor, batch: int) -> float:
    with freed_memory_kept():
        seconds = plain(model.to(memory_format=torch.channels_last), images, batch)
    model.to(memory_format=torch.contiguous_format)
    return seconds


def extraction(model: torch.nn.Module, images: torch.Tensor, batch: int, out: Path) -> float:
    began = time.perf_counter()
    fastconv.extract(model, images, out, batch_size=batch, overwrite=True, progress=False).close()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18", choices=["resnet18", "resnet50"])
    parser.add_argument("--samples", type=int, default=16 if SMOKE else 512)
    parser.add_argument("--size", type=int, default=64 if SMOKE else 224)
    parser.add_argument("--batch", type=int, default=8 if SMOKE else 64)
    parser.add_argument("--rounds", type=int, default=1 if SMOKE else 3)
    args = parser.parse_args()
    model = getattr(models, args.model)()
    images = photographs(args.samples, args.size)
    forward, best, whole = [], [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        out = Path(folder) / "run.h5"
        plain(model, images[: args.batch], args.batch)
        extraction(model, images[: args.batch], args.batch, out)  # warm up both
        for _ in range(args.rounds):
            forward.append(plain(model, images, args.batch))
            best.append(fastest(model, images, args.batch))
            whole.append(extraction(model, images, args.batch, out))
        size = out.stat().st_size
    ratios = [w / f for w, f in zip(whole, forward, strict=True)]
    result = {
        "samples": args.samples,
        "size": args.size,
        "batch": args.batch,
        "forward_s": statistics.median(forward),
        "fastest_forward_s": statistics.median(best),
        "extract_s": statistics.median(whole),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "file_mb": size / 2**20,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(f"{args.model}: extract / forward = {result['ratio']:.3f}  {result}")
    save(f"extract_{args.model}", result)


if __name__ == "__main__":
    main()
