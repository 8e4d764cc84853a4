"""The CUDA kernels on a device: their tests, and small cases for compute-sanitizer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import partial

import torch

from device_stages.cases import channels_last, draw
from device_stages.common import HERE, Suite
from fastconv import dispatch

FIELDS = ("sum", "sumsq", "min", "max", "argmax", "argmin", "positive", "nonfinite")
TOOLS = ("memcheck", "racecheck")


def tests(suite: Suite) -> str | None:
    """tests/backends/cuda on the device: every kernel against the reference."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += ["tests/backends/cuda", "-m", "not nvcc"]
    limit = max(min(suite.left(), 120.0), 1.0)
    try:
        done = subprocess.run(
            command, cwd=HERE.parent, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took more than {limit:.0f} s"
    told = (done.stdout + done.stderr).strip().splitlines()
    suite.result["tests of the CUDA kernels"] = told[-1] if told else "nothing"
    failed = [line for line in told if re.match(r"FAILED|ERROR", line)]
    return None if done.returncode == 0 else "; ".join([told[-1], *failed[:6]])[:1500]


def sanitized(suite: Suite, tool: str) -> str | None:
    """Small cases of every kernel under compute-sanitizer."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        suite.result[tool] = "not looked for: compute-sanitizer is not at hand"
        return None
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9"]
    wrong = suite.run_part("small", command, seconds=100)
    suite.result[tool] = wrong or "nothing found"
    return wrong


def small(suite: Suite) -> list[str | None]:
    """What each kernel makes of small cases, beside the reference: as the sanitizer runs them."""
    kernels, device = dispatch.load("cuda").KERNELS, suite.device
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for shape in ((2, 17, 7, 9), (1, 3, 93, 91)):
            x = draw(shape, dtype, device, exact=True)
            weight = draw((shape[1], 1, 3, 3), dtype, device, exact=True)
            geometry = ([1, 1], [1] * 4, [1, 1], shape[1])
            rest = (None, None, "relu")
            for laid in (x, channels_last(x)):
                for op, given in (
                    ("channel_reduce", (laid, *rest)),
                    ("conv_reduce", (laid, weight, None, *geometry, *rest)),
                ):
                    found.append(beside_reference(kernels, op, given, shape[1]))
    values = draw((5, 90), torch.float32, device, exact=True)
    samples = torch.arange(90, device=device).expand(5, 90).contiguous()
    old = [t[:, :7].contiguous() for t in (values, samples, samples)]
    merge = (*old, values, samples, samples, True)
    patches = (x, samples[0, :3] % len(x), samples[:3, :2] - 2, (5, 4))
    for op, given in (("topk_merge", merge), ("gather_patches", patches)):
        wanted = dispatch.load("reference").KERNELS[op].run(*given)
        got = kernels[op].run(*given)
        same = zip(got, wanted, strict=True)
        found.append(None if all(torch.equal(a, b) for a, b in same) else f"{op} differs")
    torch.cuda.synchronize()
    return found


def beside_reference(kernels, op: str, given: tuple, channels: int) -> str | None:
    results = []
    last = (True,) if op == "conv_reduce" else ()
    for run in (kernels[op].run, dispatch.load("reference").KERNELS[op].run):
        counts = torch.zeros(channels, 2563, dtype=torch.int64, device=given[0].device)
        results.append((*run(*given, counts, *last)[:8], counts))
    wrong = [
        name
        for name, a, b in zip((*FIELDS, "histogram"), *results, strict=True)
        if not torch.equal(a, b)
    ]
    return f"{op} {tuple(given[0].shape)} {given[0].dtype}: {wrong}" if wrong else None


def run(suite: Suite) -> None:
    """Tests first, then both tools of the sanitizer."""
    reason = dispatch_reason()
    if reason is not None:
        suite.check("cuda", lambda: reason)
        return
    suite.check("cuda tests", partial(tests, suite))
    for tool in TOOLS:
        suite.check(tool, partial(sanitized, suite, tool))


def dispatch_reason() -> str | None:
    """Why the backend cannot be used, asked in a fresh process: this one began before the build."""
    code = "from fastconv import dispatch; print(dispatch.load('cuda'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr[-600:]
    return None if done.stdout.startswith("<module") else done.stdout.strip()
