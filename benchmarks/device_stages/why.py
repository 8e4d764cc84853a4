"""Why? Six kernels under ncu: bytes, issue slots per result, tensor pipe; registers and spills."""

from __future__ import annotations

import csv
import io
import json
import shutil
from functools import partial

from roofline import LAYERS, floors

from device_stages.cases import channels_last, geometry, layer_tensors, set_precision
from device_stages.common import LIMIT, Suite
from fastconv.backends.triton.kernels import (
    channel_reduce as reduce_file,
)
from fastconv.backends.triton.kernels import (
    conv_reduce_direct,
    conv_reduce_pointer,
    conv_reduce_tma,
)
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.conv_reduce import conv_reduce

CHOSEN = {"A": 1, "A, deep": 3, "A, 1x1": 6, "B, stem": 0, "depthwise": 9, "hook": 6}
METRICS = {
    "dram__bytes_read.sum": "bytes read",
    "dram__bytes_write.sum": "bytes written",
    "lts__t_bytes.sum": "L2 bytes",
    "smsp__inst_issued.sum": "instructions issued",  # of warps: 32 results at once
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active": "tensor pipe, %",
    "gpu__time_duration.sum": "time",
}
KERNELS = (
    conv_reduce_tma.conv_reduce_tma_kernel,
    conv_reduce_pointer.conv_reduce_pointer_kernel,
    conv_reduce_direct.conv_reduce_direct_kernel,
    reduce_file.channel_reduce_kernel,
)
REGEX = "regex:(conv_reduce_(tma|pointer|direct)|channel_reduce)_kernel"


def run(suite: Suite) -> None:
    profiler = shutil.which("ncu")
    if profiler is None:
        suite.result["ncu"] = "not found: only registers and spills are reported"
    for name in list(CHOSEN)[:2] if suite.smoke else CHOSEN:
        suite.check(name, partial(profile, suite, profiler, name))


def profile(suite: Suite, profiler: str | None, name: str, seconds: float = LIMIT) -> str | None:
    """Run one kernel twice in a process of its own and profile the second launch."""
    command = []
    if profiler and not suite.smoke:
        command = [profiler, "--clock-control", "none", "--csv", "--metrics", ",".join(METRICS)]
        command += ["--kernel-name", REGEX, "--launch-skip", "1", "--launch-count", "1"]
    if wrong := suite.run_part(name, command, seconds, stage="why"):
        return wrong
    found = suite.result[name] = read(suite.last_output)
    layer = LAYERS[CHOSEN[name]]
    found["layer"] = layer.name
    found["predicted"] = floors(layer, "bf16")
    found["output bytes, not to be written"] = 2 * layer.results
    if "bytes written" in found:
        found["written, share of the output"] = found["bytes written"] / (2 * layer.results)
        found["issue slots per result"] = 32 * found["instructions issued"] / layer.results
        if found["written, share of the output"] > 0.02:
            return f"{found['written, share of the output']:.1%} of the output's bytes are written"
    return None


def read(output: str) -> dict:
    """Metrics from ncu's table, and the JSON line that `part` printed."""
    found: dict = {}
    lines = output.splitlines()
    for line in lines:
        if line.startswith("{"):
            found.update(json.loads(line))
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    for row in csv.DictReader(io.StringIO("\n".join(lines[start:]))):
        if row.get("Metric Name") in METRICS:
            value = float(row["Metric Value"].replace(",", ""))
            unit = {"Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}.get(row["Metric Unit"], 1)
            found[METRICS[row["Metric Name"]]] = value * unit
    return found


def part(suite: Suite, name: str) -> None:
    """Launch one kernel twice; print what the compiler made of it."""
    set_precision("bf16")
    layer = LAYERS[CHOSEN[name]].smoke() if suite.smoke else LAYERS[CHOSEN[name]]
    x, weight, bias = layer_tensors(layer, "bf16", suite.device)
    call = partial(conv_reduce, x, weight, bias, **geometry(layer), activation="relu")
    if name == "hook":
        y = call(return_activation=True, backend="triton").activation
        call = partial(channel_reduce, channels_last(y))
    for _ in range(2):
        call(backend="triton")
    if not suite.smoke:
        print(json.dumps({"compiled": compiled()}))


def compiled() -> dict[str, dict[str, int]]:
    """Registers and spilled bytes of the kernels that this process has compiled."""
    found = {}
    for kernel in KERNELS:
        for cache, *_ in kernel.device_caches.values():
            for made in cache.values():
                found[made.metadata.name] = {"registers": made.n_regs, "spills": made.n_spills}
    return found
