"""What the planner's rules rest on: layers of a network run fused beside what that replaces.

    python benchmarks/bench_plan.py [--model resnet18 resnet50] [--threads 1 2] [--rounds 5]

For every shape of convolution that the network reads on through a norm: the times of `conv_reduce`,
which measures the convolution and writes what norm and activation make of it ("fused"), and of
torch's convolution with `channel_reduce` doing that in place, over that of the convolution,
`channel_reduce`, norm and activation, one after the other. All count histograms, run channels last
on the activations of real photographs, and keep freed memory, as an extraction does. With one
thread the time is that of the thread.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

import models
import torch
from bench_extract import photographs
from results import save
from torch import Tensor, nn

from fastconv.backends import cpu
from fastconv.capture import CaptureTarget, plan_capture
from fastconv.histogram import BINS
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.run.allocator import freed_memory_kept
from fastconv.run.fused import run_fused, run_in_place

SMOKE = os.environ.get("FASTCONV_BENCH_SMOKE") == "1"


def layers(model: nn.Module, images: Tensor) -> list[tuple[CaptureTarget, Tensor]]:
    """Layers of different shapes that norm or activation follow, each with its input."""
    targets: dict[object, CaptureTarget] = {}
    for target in plan_capture(model, images[:1]):
        if target.fusion is not None and target.fusion.post_ops is not None:
            assert target.weight is not None
            shape = (target.weight.shape, target.info.size, target.fusion.post_ops.activation)
            targets.setdefault(shape, target)
    found = {}
    hooks = [
        t.module.register_forward_pre_hook(
            lambda module, args, t=t: found.setdefault(t, args[0].clone())
        )
        for t in targets.values()
    ]
    with torch.inference_mode():
        model(images)
    for hook in hooks:
        hook.remove()
    return list(found.items())


def candidates(target: CaptureTarget, x: Tensor) -> dict[str, Callable[[], object]]:
    """The same work, fused and one after the other."""
    fusion, counts = target.fusion, torch.zeros(target.info.channels, BINS, dtype=torch.int64)
    assert fusion is not None and target.weight is not None
    packed: dict[nn.Module, Tensor] = {}  # filled by the first call

    def separate() -> None:
        value = target.module(x)
        channel_reduce(value, histogram=counts)
        for module, _ in fusion.absorbed:
            value = module(value)

    def fused() -> None:
        run_fused(
            target, x, histogram=counts, return_activation=True, post_ops=fusion.post_ops,
            packed=packed, backend="cpu",
        )  # fmt: skip

    def in_place() -> None:
        run_in_place(target, x, histogram=counts, post_ops=fusion.post_ops, backend="cpu")

    return {"separate": separate, "fused": fused, "in place": in_place}


def seconds(run: Callable[[], object]) -> float:
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    run()
    return clock() - began


def measure(name: str, batch: int, size: int, rounds: int) -> dict[str, dict[str, float]]:
    model = getattr(models, name)().eval().to(memory_format=torch.channels_last)
    images = photographs(batch, size).contiguous(memory_format=torch.channels_last)
    table = {}
    with torch.inference_mode(), freed_memory_kept():
        for target, x in layers(model, images):
            runs = candidates(target, x)
            for run in runs.values():
                run()
            times = [{key: seconds(run) for key, run in runs.items()} for _ in range(rounds)]
            row = {key: statistics.median(t[key] for t in times) for key in runs}
            for key in ("fused", "in place"):
                row[f"{key} / separate"] = statistics.median(t[key] / t["separate"] for t in times)
            row["channels"], row["positions"] = target.info.channels, math.prod(target.info.size)
            table[target.info.name] = row
            shape = list(target.weight.shape) if target.weight is not None else None
            print(
                f"  {target.info.name:24s} {shape!s:20s} "
                f"{row['fused / separate']:.2f} {row['in place / separate']:.2f}",
                flush=True,
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument(
        "--threads", nargs="+", type=int, default=sorted({1, torch.get_num_threads()})
    )
    parser.add_argument("--batch", type=int, default=2 if SMOKE else 32)
    parser.add_argument("--size", type=int, default=64 if SMOKE else 224)
    parser.add_argument("--rounds", type=int, default=1 if SMOKE else 5)
    args = parser.parse_args()
    if reason := cpu.unavailable():
        parser.exit(message=f"nothing to compare: {reason}\n")
    result = {}
    for threads in args.threads:
        torch.set_num_threads(threads)
        for name in args.model:
            print(f"{name}, {threads} threads: fused, in place / separate")
            result[f"{name}, {threads} threads"] = measure(name, args.batch, args.size, args.rounds)
    save("planner", result)


if __name__ == "__main__":
    main()
