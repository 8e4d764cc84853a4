"""The extraction under c conditions beside c + 1 times the extraction without them.

    python benchmarks/bench_conditions.py [--samples 256] [--rounds 3]

Every round runs both, one after the other, in one process with the same threads; the figure is the
median of the rounds' ratios. The batch is read once, so it should be below 1. The process keeps
freed memory from before the first round, which a run with conditions goes ahead of: neither side
pays for new pages.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import models
import torch
from bench_extract import SMOKE, photographs
from results import save

import fastconv
from fastconv import perturb
from fastconv.run.allocator import freed_memory_kept


def seconds(model: torch.nn.Module, images: torch.Tensor, out: Path, **asked: Any) -> float:
    began = time.perf_counter()
    fastconv.extract(
        model, images, out, samples=True, overwrite=True, progress=False, **asked
    ).close()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=16 if SMOKE else 256)
    parser.add_argument("--size", type=int, default=64 if SMOKE else 224)
    parser.add_argument("--batch", type=int, default=8 if SMOKE else 64)
    parser.add_argument("--rounds", type=int, default=1 if SMOKE else 3)
    parser.add_argument("--conditions", default="rot15,noise0.1,blur1.5,shuffle4")
    args = parser.parse_args()
    model, images = models.resnet18(), photographs(args.samples, args.size)
    conditions = perturb.parse(args.conditions)
    count = len(conditions)
    plain, changed = [], []
    with tempfile.TemporaryDirectory() as folder, freed_memory_kept():
        out = Path(folder) / "run.h5"
        seconds(model, images, out, batch_size=args.batch, conditions=conditions)
        for _ in range(args.rounds):
            plain.append(seconds(model, images, out, batch_size=args.batch))
            changed.append(
                seconds(model, images, out, batch_size=args.batch, conditions=conditions)
            )
    ratios = [c / ((count + 1) * p) for p, c in zip(plain, changed, strict=True)]
    ratio = statistics.median(ratios)
    print(f"without conditions {min(plain):.2f} s, with {count} {min(changed):.2f} s")
    print(f"with {count} conditions / {count + 1} extractions: {ratio:.2f} (median)")
    if not SMOKE:
        save("conditions", vars(args) | {"plain": plain, "changed": changed, "ratio": ratio})


if __name__ == "__main__":
    main()
