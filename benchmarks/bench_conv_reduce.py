"""P1, P2, P3: `conv_reduce` on the CPU beside torch's convolution, alone and with what follows it.

    python benchmarks/bench_conv_reduce.py [--threads 1 2] [--rounds 7] [--compile] [--case NAME]

Each round runs, one after the other: torch's convolution alone, contiguous and channels last;
`conv_reduce` (affine map, ReLU, all reductions), both layouts; and the eager chain (convolution,
batch norm, ReLU, max with index, var_mean, amin, count of positives), channels last. A ratio is the
median over the rounds of the ratio in one round, with the faster layout of either side. Beside it
the same kernel with a weight packed before, as an extraction runs it ("packed"). With one
thread times are those of the thread, so that other work on the machine counts less; with more they
are those of the clock. The peak is what a large matrix product reaches.

Every case runs in a process of its own: whether the C library maps torch's output anew in every
call, and its pages are touched for the first time, depends on what a process did before. "kept" is
the ratio where it never does, as freed memory is kept (fastconv/run/allocator.py).
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from cases import CONV_CASES, SMOKE, ConvCase
from results import save

import fastconv
from fastconv.backends import cpu
from fastconv.backends.cpu.conv_reduce import pack_weight
from fastconv.run.allocator import freed_memory_kept

Run = Callable[[], object]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Problem:
    """Tensors of one case, and everything that is timed with them."""

    def __init__(self, case: ConvCase, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        rank = len(case.size)
        self.case = case
        self.conv = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
        self.where = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
        x = torch.randn(case.batch, case.c_in, *case.size, generator=generator).to(dtype)
        shape = (case.c_out, case.c_in // case.groups, *case.kernel)
        weight = (torch.randn(shape, generator=generator) / math.prod(shape[1:]) ** 0.5).to(dtype)
        self.layouts = {"contiguous": (x, weight)}
        self.panels: dict[str, torch.Tensor] = {}
        self.compiled_chain: Callable[[str], tuple[torch.Tensor, ...]] | None = None
        if rank > 1:
            last = torch.channels_last if rank == 2 else torch.channels_last_3d
            self.layouts["channels_last"] = tuple(
                t.contiguous(memory_format=last) for t in (x, weight)
            )
        self.mean, self.shift = torch.randn(2, case.c_out, generator=generator)
        self.var, self.gain = torch.rand(2, case.c_out, generator=generator) + 0.5
        self.scale = self.gain * torch.rsqrt(self.var + 1e-5)
        self.offset = self.shift - self.mean * self.scale

    def alone(self, layout: str) -> torch.Tensor:
        return self.conv(*self.layouts[layout], **self.where)

    def fused(self, layout: str) -> fastconv.Reduction:
        return fastconv.conv_reduce(
            *self.layouts[layout], scale=self.scale, shift=self.offset, activation="relu",
            backend="cpu", **self.where,
        )  # fmt: skip

    def packed(self, layout: str) -> object:
        """Without packing the weight, which a call of `conv_reduce` does."""
        x, weight = self.layouts[layout]
        if layout not in self.panels:
            self.panels[layout] = pack_weight(weight, self.case.groups)
        ones = [1] * len(self.case.size)
        pads = [p for p in self.case.padding for _ in range(2)]
        return cpu.KERNELS["conv_reduce"].run(
            x, weight, None, self.case.stride, pads, ones, self.case.groups, self.scale,
            self.offset, "relu", None, return_activation=False, packed=self.panels[layout],
        )  # fmt: skip

    def chain(self, layout: str) -> tuple[torch.Tensor, ...]:
        y = self.alone(layout)
        statistics_of = [t.to(y.dtype) for t in (self.mean, self.var, self.gain, self.shift)]
        y = F.relu(F.batch_norm(y, *statistics_of)).flatten(2)
        high, where = y.max(-1)
        var, mean = torch.var_mean(y, -1)
        return high, where, var, mean, y.amin(-1), (y > 0).sum(-1)

    def compiled(self, layout: str) -> tuple[torch.Tensor, ...]:
        """The chain under torch.compile."""
        if self.compiled_chain is None:
            torch._dynamo.reset()  # it gives up on a function after a few shapes
            self.compiled_chain = torch.compile(self.chain)
        return self.compiled_chain(layout)

    def check(self) -> None:
        """Nothing is timed that is wrong: against float64, on one sample."""
        x, weight = (t.double() for t in self.layouts["contiguous"])
        y = self.conv(x[:1], weight, **self.where).flatten(2)
        y = F.relu(y * self.scale.double()[:, None] + self.offset.double()[:, None])
        for layout in self.layouts:
            got = self.fused(layout)
            torch.testing.assert_close(got.max[:1].double(), y.amax(-1), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(got.sum[:1], y.sum(-1), rtol=1e-4, atol=1e-4 * y.shape[-1])


def seconds(run: Run) -> float:
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def measure_apart(
    case: ConvCase, dtype: torch.dtype, rounds: int, *, compiled: bool
) -> dict[str, float]:
    """`measure` in a new process; of small sizes, which show only that it runs, in this one."""
    given = (case, dtype, rounds, torch.get_num_threads())
    if SMOKE:
        return measure(*given, compiled=compiled)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, given, {"compiled": compiled})


@torch.inference_mode()
def measure(
    case: ConvCase, dtype: torch.dtype, rounds: int, threads: int, *, compiled: bool
) -> dict[str, float]:
    """Times (medians, ms) and ratios of one case."""
    torch.set_num_threads(threads)
    problem = Problem(case, dtype)
    problem.check()
    runs: dict[str, Run] = {}
    for layout in problem.layouts:
        runs[f"alone {layout}"] = lambda at=layout: problem.alone(at)
        runs[f"fused {layout}"] = lambda at=layout: problem.fused(at)
        runs[f"packed {layout}"] = lambda at=layout: problem.packed(at)
    best = list(problem.layouts)[-1]
    runs["chain"] = lambda: problem.chain(best)
    if compiled:
        runs["compiled chain"] = lambda: problem.compiled(best)
    for run in runs.values():
        run()
    rows = [{name: seconds(run) for name, run in runs.items()} for _ in range(rounds)]
    shown = [best] if dtype == torch.bfloat16 else list(problem.layouts)
    pair = {
        n: r
        for n, r in runs.items()
        if n in {f"{k} {at}" for k in ("alone", "fused") for at in shown}
    }
    with freed_memory_kept():
        for run in pair.values():
            run()
        kept = [{name: seconds(run) for name, run in pair.items()} for _ in range(rounds)]

    def fastest(row: dict[str, float], kind: str) -> float:
        return min(t for name, t in row.items() if name.startswith(kind))

    def ratio(over: str, under: str) -> float:
        return statistics.median(fastest(row, over) / fastest(row, under) for row in rows)

    result = {f"{name} ms": statistics.median(row[name] for row in rows) * 1e3 for name in runs}
    result["GFLOP/s"] = case.flops / statistics.median(fastest(r, "fused") for r in rows) / 1e9
    result["fused / alone"] = ratio("fused", "alone")
    result["packed / alone"] = ratio("packed", "alone")
    result["chain / fused"] = ratio("chain", "fused")
    if dtype == torch.bfloat16:
        result["fused / alone, channels last"] = ratio(f"fused {best}", f"alone {best}")
    result["kept: fused / alone"] = statistics.median(
        fastest(row, "fused") / fastest(row, "alone") for row in kept
    )
    if compiled:
        result["compiled chain / fused"] = ratio("compiled chain", "fused")
    return result


def cases_of(dtype: torch.dtype, part: str = "") -> list[ConvCase]:
    """Those whose name has `part` in it; in bfloat16 those that AMX multiplies."""
    return [
        case
        for case in CONV_CASES
        if part in case.name and (dtype == torch.float32 or case.groups == 1)
    ]


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product, the best of some."""
    a = torch.randn(256 if SMOKE else 2048, 256 if SMOKE else 2048).to(dtype)
    a @ a
    return 2 * a.shape[0] ** 3 / min(seconds(lambda: a @ a) for _ in range(9)) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--rounds", type=int, default=3 if SMOKE else 7)
    parser.add_argument("--case", default="", help="only the cases whose name has this in it")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the chain")
    options = parser.parse_args()
    if (reason := cpu.unavailable()) is not None:
        raise SystemExit(reason)
    result = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.dtypes:
            with torch.inference_mode():
                rows = run_cases(cases_of(DTYPES[name], options.case), DTYPES[name], options)
            result.append({"threads": threads, "dtype": name, **rows})
    path = None if options.case else save("conv_reduce", {"isa": cpu.isa(), "runs": result})
    print(f"wrote {path}" if path else "nothing kept")


def run_cases(cases, dtype, options) -> dict[str, object]:
    top = peak(dtype)
    print(f"{torch.get_num_threads()} threads, {dtype}, peak {top:.0f} GFLOP/s")
    rows = []
    for case in cases:
        row = measure_apart(case, dtype, options.rounds, compiled=options.compile)
        rows.append({"case": case.name, "share of peak": row["GFLOP/s"] / top, **row})
        print(
            f"{case.name:32s} fused / alone {row['fused / alone']:.2f}, "
            f"kept {row['kept: fused / alone']:.2f}, "
            f"chain / fused {row['chain / fused']:5.2f}, {row['GFLOP/s']:5.0f} GFLOP/s",
            flush=True,
        )
    keys = [key for key in rows[0] if "/" in key and key != "GFLOP/s"]
    means = {key: statistics.geometric_mean(row[key] for row in rows) for key in keys}
    print("geometric means: " + ", ".join(f"{k} {v:.2f}" for k, v in means.items()), flush=True)
    return {"peak GFLOP/s": top, "geometric means": means, "cases": rows}


if __name__ == "__main__":
    main()
