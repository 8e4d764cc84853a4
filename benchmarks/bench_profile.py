"""Where the time of an extraction goes, per layer and per kind, with the floor beside each.

    python benchmarks/bench_profile.py [--model resnet18] [--samples 64] [--rounds 3] [--threads 1]

Every moment of an extraction is given to one layer and one kind:

- network: the forward between two layers that are measured, the convolution of the second included
- fused: convolutions that run in one kernel with their reductions
- reduction: reading an output and reducing it, with norm and activation written over it; exact sums
- histogram: what counting adds to these, the difference to an extraction with quantiles=False
- hits, patches: merging candidates; cutting their pictures
- start: the probe, the plan, the fingerprint; data: reading; file: parts and the finished file
- python: everything else

Floors: multiply-adds at the rate of a large matrix product; bytes of every output at the rate of a
streaming read; one increment of a histogram a value at one a cycle. Each round runs the fastest
plain forward (channels last), the extraction, and the one without histograms; figures are medians
over the rounds, all with freed memory kept.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import torch
from bench_conv_reduce import peak
from bench_extract import forward as plain_forward
from bench_extract import photographs, spent
from results import save

import fastconv
from fastconv.data.samples import Samples
from fastconv.format.result import LayerInfo
from fastconv.measure.hits import Hits
from fastconv.measure.patches import PatchSource
from fastconv.run import extract, fused, layer_sink
from fastconv.run.allocator import freed_memory_kept
from fastconv.run.job import Job
from fastconv.run.recording import Recording

SMOKE = os.environ.get("FASTCONV_BENCH_SMOKE") == "1"
PER_LAYER = ("network", "fused", "reduction", "histogram", "hits", "patches")
ONCE = ("start", "data", "file", "python")

Times = dict[tuple[str, str], float]  # seconds by (layer, kind); layer "" for what belongs to none


class Timeline:
    """Gives every moment to the innermost of the timed calls that are under way."""

    def __init__(self) -> None:
        self.times: Times = defaultdict(float)
        self._open: list[tuple[str, str]] = [("", "python")]
        self._since = time.perf_counter()
        self._undo: list[Callable[[], None]] = []

    def passed(self) -> float:
        """Seconds since the last change of hands."""
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        return passed

    def enter(self, layer: str | None, kind: str) -> None:
        """Begin a call; layer None for the one of the call around it."""
        outer = self._open[-1]
        self.times[outer] += self.passed()
        self._open.append((outer[0] if layer is None else layer, kind))

    def leave(self) -> None:
        self.times[self._open.pop()] += self.passed()

    def arrive(self, layer: str) -> None:
        """The network has come to a layer: what it did since the one before is this one's."""
        self.times[layer, "network"] += self.passed()

    def time(self, owner: Any, name: str, kind: str, layer: str | None = None) -> None:
        """Time every call of a function or method until the timeline ends."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(layer, kind)
            try:
                return inner(*args, **kwargs)
            finally:
                self.leave()

        self._replace(owner, name, timed)

    def time_sink(self, name: str) -> None:
        """Time what a sink does with its layer."""
        inner = getattr(layer_sink.LayerSink, name)

        @functools.wraps(inner)
        def timed(sink: Any, *args: Any) -> Any:
            self.arrive(sink.info.name)
            self.enter(sink.info.name, "python")
            try:
                return inner(sink, *args)
            finally:
                self.leave()

        self._replace(layer_sink.LayerSink, name, timed)

    def time_batches(self) -> None:
        """Time how long the run waits for its batches."""
        inner = Samples.batches

        @functools.wraps(inner)
        def timed(samples: Samples, *args: Any, **kwargs: Any) -> Iterator[Any]:
            batches = iter(inner(samples, *args, **kwargs))
            while True:
                self.enter("", "data")
                try:
                    batch = next(batches, None)
                finally:
                    self.leave()
                if batch is None:
                    return
                yield batch

        self._replace(Samples, "batches", timed)

    def _replace(self, owner: Any, name: str, by: Any) -> None:
        self._undo.append(functools.partial(setattr, owner, name, getattr(owner, name)))
        setattr(owner, name, by)

    def end(self) -> Times:
        for undo in reversed(self._undo):
            undo()
        self.times[self._open[-1]] += self.passed()
        return self.times


@contextlib.contextmanager
def timeline() -> Iterator[Timeline]:
    """Time everything that an extraction does inside."""
    line = Timeline()
    line.time(Job, "__init__", "start", "")
    line.time(Job, "forward", "network", "")
    line.time_sink("output")
    line.time_sink("input")
    line.time(layer_sink, "channel_reduce", "reduction")
    line.time(layer_sink, "run_fused", "fused")
    line.time(layer_sink, "run_in_place", "network")
    line.time(fused, "channel_reduce", "reduction")
    line.time(layer_sink.LayerState, "update", "reduction")
    line.time(Hits, "update", "hits")
    line.time(PatchSource, "place", "patches")
    line.time(Recording, "save", "file", "")
    line.time(extract, "write", "file", "")
    line.time_batches()
    line.passed()
    try:
        yield line
    finally:
        line.end()


def profile(
    model: torch.nn.Module, images: torch.Tensor, batch: int, *, quantiles: bool = True
) -> Times:
    """Run an extraction, everything on but for the histograms where they are not asked for."""
    with tempfile.TemporaryDirectory(dir=".") as folder, timeline() as line:
        fastconv.extract(
            model,
            images,
            Path(folder) / "run.h5",
            batch_size=batch,
            quantiles=quantiles,
            progress=False,
        ).close()
    return line.times


def measured(model: torch.nn.Module, images: torch.Tensor) -> list[tuple[LayerInfo, int]]:
    """The layers that an extraction measures, and the multiply-adds of each output value."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run = fastconv.extract(model, images[:2], Path(folder) / "run.h5", progress=False)
        with run:
            return [(run[n].info, math.prod(run[n].weight.shape[1:])) for n in run.layers]


def rates() -> dict[str, float]:
    """Operations, bytes and cycles a second that the threads in use can do at best."""
    memory = torch.zeros((1 if SMOKE else 64) << 20)
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        torch.ops.fastconv_cpu.stream_read(memory)
        seconds.append(time.perf_counter() - began)
    found = re.search(r"cpu MHz\s*: ([\d.]+)", Path("/proc/cpuinfo").read_text())
    return {
        "flops": peak(torch.float32) * 1e9,
        "bytes": memory.nbytes / min(seconds),
        "cycles": (float(found[1]) * 1e6 if found else math.nan) * torch.get_num_threads(),
    }


def floors(info: LayerInfo, taps: int, samples: int, rate: dict[str, float]) -> dict[str, float]:
    """Seconds at least, by kind."""
    values = samples * info.channels * math.prod(info.size)
    return {
        "network": 2 * values * taps / rate["flops"],
        "reduction": 4 * values / rate["bytes"],
        "histogram": values / rate["cycles"],
    }


def medians(rounds: list[Times]) -> Times:
    keys = set().union(*rounds)
    return {key: statistics.median(times.get(key, 0.0) for times in rounds) for key in keys}


def histogram_apart(whole: Times, without: Times) -> Times:
    """Move what counting adds out of the reductions and fused convolutions."""
    split = dict(whole)
    for layer in {layer for layer, _ in whole if layer}:
        for kind in ("reduction", "fused"):
            added = whole.get((layer, kind), 0.0) - without.get((layer, kind), 0.0)
            split[layer, "histogram"] = split.get((layer, "histogram"), 0.0) + added
            split[layer, kind] = whole.get((layer, kind), 0.0) - added
    return split


def show(rows: list[dict[str, Any]], once: dict[str, float], forward: float) -> None:
    print(f"{'milliseconds (floor)':24}" + "".join(f"{kind:>16}" for kind in PER_LAYER))
    for row in rows:
        cells = []
        for kind in PER_LAYER:
            floor = row["floors"].get("network" if kind == "fused" else kind)
            shown = row[kind] > 0 and floor is not None
            cells.append(f"{1e3 * row[kind]:.1f}" + (f" ({1e3 * floor:.1f})" if shown else ""))
        print(f"{row['layer']:24}" + "".join(f"{cell:>16}" for cell in cells))
    sums = {kind: sum(row[kind] for row in rows) for kind in PER_LAYER} | once
    print("in all: " + ", ".join(f"{kind} {1e3 * seconds:.0f}" for kind, seconds in sums.items()))
    print(f"fastest plain forward: {1e3 * forward:.0f}; whole: {1e3 * sum(sums.values()):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet18", choices=["resnet18", "resnet50"])
    parser.add_argument("--samples", type=int, default=4 if SMOKE else 128)
    parser.add_argument("--size", type=int, default=64 if SMOKE else 224)
    parser.add_argument("--batch", type=int, default=4 if SMOKE else 64)
    parser.add_argument("--rounds", type=int, default=1 if SMOKE else 3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = getattr(models, args.model)()
    images = photographs(args.samples, args.size)
    last = getattr(models, args.model)().to(memory_format=torch.channels_last)
    given = images.contiguous(memory_format=torch.channels_last), args.batch
    whole, without, forward = [], [], []
    with freed_memory_kept():
        layers = measured(model, images)
        profile(model, images[: args.batch], args.batch)  # warm up
        for _ in range(args.rounds):
            forward.append(spent(functools.partial(plain_forward, last, *given)).wall)
            whole.append(profile(model, images, args.batch))
            without.append(profile(model, images, args.batch, quantiles=False))
        rate = rates()
    times = histogram_apart(medians(whole), medians(without))
    rows: list[dict[str, Any]] = [
        {
            "layer": info.name,
            "measured_by": info.measured_by,
            **{kind: times.get((info.name, kind), 0.0) for kind in PER_LAYER},
            "floors": floors(info, taps, args.samples, rate),
        }
        for info, taps in layers
    ]
    once = {kind: sum(s for (_, k), s in times.items() if k == kind) for kind in ONCE}
    once["network after the last layer"] = times.get(("", "network"), 0.0)
    plain = statistics.median(forward)
    show(rows, once, plain)
    result = {**vars(args), "rates": rate, "fastest_forward_s": plain, "once": once, "layers": rows}
    save(f"profile_{args.model}", result)


if __name__ == "__main__":
    main()
