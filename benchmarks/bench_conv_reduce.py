"""P1, P2, P3: `conv_reduce` on the CPU beside torch's convolution, alone and with what follows it.

    python benchmarks/bench_conv_reduce.py [--threads 1 2] [--rounds 7] [--compile] [--case NAME]

Each round runs, one after the other: torch's convolution alone; `conv_reduce` (affine map, ReLU,
all reductions); and the eager chain (convolution, batch norm, ReLU, max with index, var_mean, amin,
count of positives), each contiguous and channels last. A ratio is the median over the rounds of
the ratio in one round, with the faster layout of either side. Beside it the same kernel with a
weight packed before, as an extraction runs it ("packed"). With one thread times are those of the
thread, so that other work on the machine counts less; with more they are those of the clock.

Every case runs in a process of its own, in which the C library keeps freed memory: else torch's
output, mapped anew in every call, would cost page faults that are no merit of a fused kernel.
The floor is the longer of all products, one by one, at the best rate of torch's in a large matrix
product or convolution, and of reading input and weight once at the rate of a streaming read.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from apart import apart
from cases import CONV_CASES, SMOKE, ConvCase, random_cases
from results import save

import fastconv
from fastconv.backends import cpu
from fastconv.backends.cpu.conv_reduce import pack_weight

Run = Callable[[], object]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SETS = {"public": CONV_CASES, "random": random_cases()}


class Problem:
    """Tensors of one case, and everything that is timed with them."""

    def __init__(self, case: ConvCase, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        rank = len(case.size)
        self.case = case
        self.conv = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
        self.where = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
        self.where["dilation"] = case.dilation
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
        dilation = [self.case.dilation] * len(self.case.size)
        if layout not in self.panels:
            self.panels[layout] = pack_weight(weight, self.case.stride, dilation, self.case.groups)
        pads = [p for p in self.case.padding for _ in range(2)]
        return cpu.KERNELS["conv_reduce"].run(
            x, weight, None, self.case.stride, pads, dilation, self.case.groups, self.scale,
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


def seconds(run: Run, calls: int = 1) -> float:
    """Of a call; short ones need several."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


@torch.inference_mode()
def measure(
    case: ConvCase, dtype: torch.dtype, rounds: int, threads: int, *, compiled: bool
) -> dict[str, float]:
    """Times (medians, ms) and ratios of one case."""
    torch.set_num_threads(threads)
    problem = Problem(case, dtype)
    problem.check()
    kinds = ("alone", "fused", "packed", "chain", *(["compiled"] if compiled else []))
    runs: dict[str, Run] = {
        f"{kind} {layout}": partial(getattr(problem, kind), layout)
        for kind in kinds
        for layout in problem.layouts
    }
    for run in runs.values():
        run()
    shortest = min(seconds(run) for run in runs.values())
    calls = 1 if SMOKE else max(1, round(2e-3 / shortest))
    rows = [{name: seconds(run, calls) for name, run in runs.items()} for _ in range(rounds)]

    def fastest(kind: str) -> list[float]:
        return [min(t for name, t in row.items() if name.startswith(kind)) for row in rows]

    def ratio(over: str, under: str) -> float:
        pairs = zip(fastest(over), fastest(under), strict=True)
        return statistics.median(a / b for a, b in pairs)

    took = statistics.median(fastest("fused"))
    floors = floors_of(problem)
    result = {f"{name} ms": statistics.median(row[name] for row in rows) * 1e3 for name in runs}
    result |= {"fused ms": took * 1e3, "GFLOP/s": case.flops / took / 1e9}
    result |= {f"floor, {name}, ms": value * 1e3 for name, value in floors.items()}
    result["share of floor"] = max(floors.values()) / took
    result["fused / alone"] = ratio("fused", "alone")
    result["packed / alone"] = ratio("packed", "alone")
    result["chain / fused"] = ratio("chain", "fused")
    if compiled:
        result["compiled chain / fused"] = ratio("compiled", "fused")
    return result


def floors_of(problem: Problem) -> dict[str, float]:
    """Seconds at least, of the products and of the bytes, at rates measured beside."""
    x, weight = problem.layouts["contiguous"]
    size = x.numel() * x.element_size()
    raw = torch.zeros(max(size, 1 << 20) // 4)
    torch.ops.fastconv_cpu.stream_read(raw)
    read = min(seconds(lambda: torch.ops.fastconv_cpu.stream_read(raw)) for _ in range(5))
    total = size + weight.numel() * weight.element_size()
    products = problem.case.flops / peak(x.dtype) / 1e9
    return {"products": products, "bytes": total / (raw.numel() * 4) * read}


def cases_of(
    dtype: torch.dtype, cases: list[ConvCase] = CONV_CASES, part: str = ""
) -> list[ConvCase]:
    """Those whose name has `part` in it; in bfloat16 those that AMX multiplies."""
    return [
        case for case in cases if part in case.name and (dtype == torch.float32 or case.groups == 1)
    ]


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product or of a large convolution of torch, the best of some."""
    n, size = (64, 8) if SMOKE else (256, 30)
    a = torch.randn(4 * n, 4 * n).to(dtype)
    x = torch.randn(4, n, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(n, n, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    runs: dict[Run, int] = {
        lambda: a @ a: 2 * a.shape[0] ** 3,
        lambda: F.conv2d(x, weight): 2 * 4 * (size - 2) ** 2 * 9 * n * n,
    }
    return max(flops / min(seconds(run) for _ in range(5)) for run, flops in runs.items()) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, help="bfloat16 by default with AMX")
    parser.add_argument("--rounds", type=int, default=3 if SMOKE else 7)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--case", default="", help="only the cases whose name has this in it")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the chain")
    options = parser.parse_args()
    if (reason := cpu.unavailable()) is not None:
        raise SystemExit(reason)
    dtypes = options.dtypes or (list(DTYPES) if SMOKE or cpu.isa() == "amx" else ["float32"])
    result = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in dtypes:
            for kind in options.sets:
                cases = cases_of(DTYPES[name], SETS[kind], options.case)
                rows = run_cases(cases, DTYPES[name], options)
                result.append({"threads": threads, "dtype": name, "set": kind, **rows})
    path = None if options.case else save("conv_reduce", {"isa": cpu.isa(), "runs": result})
    print(f"wrote {path}" if path else "nothing kept")


def run_cases(cases, dtype, options) -> dict[str, object]:
    print(f"{torch.get_num_threads()} threads, {dtype}")
    rows = []
    for case in cases:
        row = apart(
            measure, case, dtype, options.rounds, torch.get_num_threads(), compiled=options.compile
        )
        rows.append({"case": case.name, **row})
        print(
            f"{case.name:48s} {row['fused ms']:7.2f} ms, fused / alone {row['fused / alone']:.2f}, "
            f"packed {row['packed / alone']:.2f}, chain / fused {row['chain / fused']:5.2f}, "
            f"{row['GFLOP/s']:4.0f} GFLOP/s, {row['share of floor']:.0%} of the floor",
            flush=True,
        )
    if not rows:
        return {"cases": []}
    keys = [key for key in rows[0] if "/" in key and key != "GFLOP/s"]
    means = {key: statistics.geometric_mean(row[key] for row in rows) for key in keys}
    worst = {key: (max if key.endswith("alone") else min)(row[key] for row in rows) for key in keys}
    print("geometric means: " + ", ".join(f"{k} {v:.2f}" for k, v in means.items()))
    print("worst: " + ", ".join(f"{k} {v:.2f}" for k, v in worst.items()), flush=True)
    return {"geometric means": means, "worst": worst, "cases": rows}


if __name__ == "__main__":
    main()
