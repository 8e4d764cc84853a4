"""The CUDA kernels on a device: their tests, and small cases for compute-sanitizer."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from device_stages.cases import channels_last, draw, set_precision
from device_stages.common import HERE, TOOK, Suite, run_limited
from fastconv import dispatch

FIELDS = ("sum", "sumsq", "min", "max", "argmax", "argmin", "positive", "nonfinite")
KERNELS = {  # parts of their names; those of CUDA C++ hold the namespace
    "cuda": ("fastconv",),
    "triton": ("conv_reduce", "channel_reduce", "merge_segments", "topk_merge", "place_patches"),
}
SANITIZED = [(tool, backend) for tool in ("memcheck", "racecheck") for backend in KERNELS]
TESTS = {  # what pytest is asked for
    "tests of the CUDA kernels": ["tests/backends/cuda", "-m", "not nvcc and not slow"],
    "shared cases, cuda": ["tests/ops", "-k", "cuda-cuda"],
    "graphs, streams, devices": ["tests/backends/test_on_a_device.py"],
    "shared cases, triton": ["tests/ops", "-k", "cuda-triton"],
}


def tests(suite: Suite, name: str, seconds: float) -> str | None:
    """Some of the project's tests, on the device."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    if name.endswith("triton") and importlib.util.find_spec("xdist"):
        command += ["-n", "6"]  # Triton compiles
    limit = max(min(suite.left(), seconds), 1.0)
    code, told = run_limited([*command, *TESTS[name]], limit, cwd=HERE.parent)
    lines = told.strip().splitlines() or ["nothing"]
    if code is None:
        dots = "".join(re.findall(r"^[.FEsx]+(?=$| )", told, re.MULTILINE))
        suite.result[name] = f"{dots.count('.')} passed, then time ran out"
        failed = len(dots) - dots.count(".") - dots.count("s")
        return f"{failed} failed before {limit:.0f} s had passed" if failed else None
    suite.result[name] = lines[-1]
    failed = [line for line in lines if re.match(r"FAILED|ERROR", line)]
    return None if code == 0 else "; ".join([lines[-1], *failed[:6]])[:1500]


def sanitized(suite: Suite, tool: str, backend: str, seconds: float) -> str | None:
    """Small cases of every kernel under compute-sanitizer, each tensor in memory of its own."""
    name, sanitizer = f"{tool}, {backend}", shutil.which("compute-sanitizer")
    if sanitizer is None:
        suite.result[name] = "not looked for: compute-sanitizer is not at hand"
        return None
    command = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", sanitizer, "--tool", tool]
    command += ["--error-exitcode", "9"]
    ours = [word for part in KERNELS[backend] for word in ("--kernel-regex", f"kns={part}")]
    if tool == "memcheck":
        ours += ["--report-api-errors", "no"]  # torch asks for functions that may be missing
    small = f"small {backend}"
    wrong = suite.run_part(small, command + ours, seconds)
    if wrong and not wrong.startswith(TOOK) and "SUMMARY" not in wrong:  # options unknown to it
        wrong = suite.run_part(small, command, seconds)
    if wrong and "Device not supported" in wrong:
        suite.result[name] = "not looked for: compute-sanitizer does not support this device"
        return None
    suite.result[name] = wrong or "nothing found"
    return wrong


def small(suite: Suite, name: str) -> list[str]:
    """What a backend makes of small cases, beside the reference: as the sanitizer runs them."""
    set_precision("ieee")
    torch.backends.cudnn.enabled = False  # of the reference: its transforms would round
    backend = dispatch.load(name)
    if isinstance(backend, str):
        return [backend]
    found = []
    for op, given in small_cases(suite.device):
        if backend.KERNELS[op].supports(*given) is not None:
            continue
        if wrong := differs(backend.KERNELS[op].run, op, given):
            found.append(f"{name} {op} {list(given[0].shape)} {given[0].dtype}: {wrong}")
    if suite.device.type == "cuda":
        torch.cuda.synchronize()
    return found


def small_cases(device: torch.device) -> Iterator[tuple[str, tuple]]:
    """Ops and their arguments: odd sizes, both layouts; depthwise, by TMA, by pointers."""
    rest = (None, None, "relu")
    large = (93, 91) if device.type == "cuda" else (13, 11)  # several segments of positions
    for dtype in (torch.float32, torch.bfloat16):
        for shape in ((2, 17, 7, 9), (1, 3, *large), (2, 16, 9, 8)):
            x = draw(shape, dtype, device, exact=True)
            channels = shape[1]
            for laid in (x, channels_last(x)):
                yield "channel_reduce", (laid, *rest)
                for groups in (channels, 1):
                    weight = draw((channels, channels // groups, 3, 3), dtype, device, exact=True)
                    geometry = ([1, 1], [1] * 4, [1, 1], groups)
                    yield "conv_reduce", (laid, weight, None, *geometry, *rest)
    values = draw((5, 90), torch.float32, device, exact=True)
    samples = torch.arange(90, device=device).expand(5, 90).contiguous()
    old = [t[:, :7].contiguous() for t in (values, samples, samples)]
    yield "topk_merge", (*old, values, samples, samples, True)
    yield "gather_patches", (x, samples[0, :3] % len(x), samples[:3, :2] - 2, (5, 4))


def differs(run: Callable, op: str, given: tuple) -> list[str]:
    """Fields in which a kernel and the reference differ."""
    results = []
    for kernel in (run, dispatch.load("reference").KERNELS[op].run):
        if op in ("topk_merge", "gather_patches"):
            made = kernel(*given)
            results.append(made if isinstance(made, tuple) else (made,))
            continue
        channels = given[1].shape[0] if op == "conv_reduce" else given[0].shape[1]
        counts = torch.zeros(channels, 2563, dtype=torch.int64, device=given[0].device)
        last = (True,) if op == "conv_reduce" else ()
        results.append((*kernel(*given, counts, *last)[:8], counts))
    names = (*FIELDS, "histogram") if len(results[0]) > 4 else "0123"
    found = zip(names, *results, strict=False)
    return [name for name, a, b in found if not same(a, b, rtol=1e-6 * (name == "sumsq"))]


def same(a: Tensor, b: Tensor, rtol: float) -> bool:
    return torch.allclose(a.nan_to_num(7).double(), b.nan_to_num(7).double(), rtol, 0.0)


def runs(suite: Suite, seconds: float) -> dict[str, Callable[[], str | None]]:
    """Tests of the kernels, and both tools of the sanitizer."""
    reason = dispatch_reason()
    if reason is not None:
        return {"cuda": lambda: reason}
    first = [name for name in TESTS if not name.endswith("triton")]
    tested = {name: partial(tests, suite, name, seconds) for name in first}
    looked = {f"{t}, {b}": partial(sanitized, suite, t, b, seconds) for t, b in SANITIZED}
    return tested | looked


def dispatch_reason() -> str | None:
    """Why the backend cannot be used, asked in a fresh process: this one began before the build."""
    code = "from fastconv import dispatch; print(dispatch.load('cuda'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr[-600:]
    return None if done.stdout.startswith("<module") else done.stdout.strip()
