"""P4: `channel_reduce` on the CPU, as a share of the streaming-read bandwidth.

    python benchmarks/bench_channel_reduce.py [--threads 1 2] [--rounds 15]

The streaming read is the fastest the instruction set has (`fastconv_cpu::stream_read`: eight
chains of vector loads and XOR), over the very memory that is then reduced. Each round runs the
read and every variant once, one after the other; a share is the median over the rounds of
(time of the read) / (time of the reduction) in the same round. With one thread the time is that of
the thread, so that other work on the machine counts less; with more it is that of the clock. Every
shape and dtype has a process of its own, in which freed memory is kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from apart import SMOKE, apart
from results import save

import fastconv
from fastconv.backends import cpu
from fastconv.histogram import BINS

SHAPES = [(8, 64, 14, 14)] if SMOKE else [
    (64, 64, 112, 112), (64, 64, 56, 56), (64, 128, 28, 28), (64, 256, 14, 14), (64, 512, 7, 7),
]  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check(x: torch.Tensor, counts: torch.Tensor) -> None:
    """Nothing is timed that is wrong: all fields against the reference, on two samples."""
    got = fastconv.channel_reduce(x[:2], histogram=counts, backend="cpu")
    want = fastconv.channel_reduce(x[:2], histogram=True, backend="reference")
    for name in ("min", "max", "argmin", "argmax", "positive", "nonfinite", "histogram"):
        if not torch.equal(getattr(got, name), getattr(want, name)):
            raise AssertionError(f"{name} is wrong for {list(x.shape)} {x.dtype}")
    torch.testing.assert_close(got.sum, want.sum, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(got.sumsq, want.sumsq, rtol=1e-12, atol=1e-9)


def variants(x: torch.Tensor) -> tuple[Callable[[], object], dict[str, Callable[[], object]]]:
    """The streaming read of the bytes of x, and the reductions of x by name."""
    layouts = {"contiguous": x, "channels_last": x.contiguous(memory_format=torch.channels_last)}
    runs: dict[str, Callable[[], object]] = {}
    for layout, value in layouts.items():
        counts = torch.zeros(x.shape[1], BINS, dtype=torch.int64)
        check(value, counts)
        runs[layout] = lambda v=value: fastconv.channel_reduce(v, backend="cpu")
        runs[f"{layout}, histogram"] = lambda v=value, c=counts: fastconv.channel_reduce(
            v, histogram=c, backend="cpu"
        )
    raw = x.view(-1).view(torch.float32)
    return lambda: torch.ops.fastconv_cpu.stream_read(raw), runs


def seconds(run: Callable[[], object]) -> float:
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def measure(shape: tuple[int, ...], dtype: torch.dtype, threads: int, rounds: int) -> dict:
    """GB/s of the read, and the share of it that every variant reaches."""
    torch.set_num_threads(threads)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    read, runs = variants(x)
    for run in (read, *runs.values()):
        run()
    times: list[dict[str, float]] = []
    for _ in range(rounds):
        row = {"read": seconds(read)}
        row |= {name: seconds(run) for name, run in runs.items()}
        times.append(row)
    size = x.numel() * x.element_size()
    read_time = statistics.median(row["read"] for row in times)
    shares = {name: statistics.median(row["read"] / row[name] for row in times) for name in runs}
    return {"read_GB_per_s": size / read_time / 1e9, **shares}


def means(cases: list[dict]) -> dict[str, float]:
    """P4: geometric means of the shares of float32, 112x112 to 14x14, by threads and variant."""
    found: dict[str, list[float]] = {}
    for row in cases:
        if row["dtype"] == "torch.float32" and row["shape"][-1] > 7:
            for name in ("contiguous", "channels_last"):
                found.setdefault(f"{name}, {row['threads']} threads", []).append(row[name])
    return {name: statistics.geometric_mean(shares) for name, shares in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3 if SMOKE else 15)
    options = parser.parse_args()
    if (reason := cpu.unavailable()) is not None:
        raise SystemExit(reason)
    result = []
    for threads in options.threads:
        for shape in SHAPES:
            for dtype in DTYPES:
                figures = apart(measure, shape, dtype, threads, options.rounds)
                row = {"threads": threads, "shape": list(shape), "dtype": str(dtype), **figures}
                result.append(row)
                read, *shares = figures.values()
                print(
                    f"{threads} threads {shape} {dtype}: read {read:5.1f} GB/s; share "
                    + ", ".join(
                        f"{k} {v:.0%}" for k, v in zip(list(figures)[1:], shares, strict=True)
                    ),
                    flush=True,
                )
    for name, share in means(result).items():
        print(f"geometric mean, {name}: {share:.0%}")
    path = save("channel_reduce", {"isa": cpu.isa(), "means": means(result), "cases": result})
    print(f"wrote {path}" if path else "smoke run: nothing kept")


if __name__ == "__main__":
    main()
