"""How fast? Layers beside cuDNN and eager torch, the goals; small batches; top-k; whole models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from roofline import LAYERS, Layer, floors, ratios

from device_stages import goals
from device_stages.build import Build
from device_stages.cases import channels_last, geometry, layer_tensors, set_precision
from device_stages.common import Suite
from fastconv import dispatch
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.conv_reduce import conv_reduce
from fastconv.ops.gather_patches import gather_patches
from fastconv.ops.topk_merge import empty_topk, topk_merge
from fastconv.run import gpu_cost

SHAPE = ("math", "c_in", "c_out", "out_size", "kernel", "groups")
COMPILED = ("rn50 l1 3x3 64@56", "rn50 l3 3x3 256@14", "1x1 64->256@56", "mbv2 dw3x3 32@112")


def run(suite: Suite) -> None:
    layers = [LAYERS[1].smoke(), LAYERS[8].smoke()] if suite.smoke else LAYERS
    build = Build(suite)
    if not suite.smoke:
        suite.check_together(
            suite.shares("compile", 12)
        )  # side by side: one after the other takes longer than a stage
        suite.result["copy, TB/s"] = goals.copy_bandwidth()
    suite.check("build", build.wait)
    for math_type in ("bf16",) if suite.smoke else ("bf16", "tf32"):
        table = suite.result.setdefault(math_type, {})
        for layer in layers:
            suite.check(
                f"{math_type} {layer.name}", partial(measure, suite, layer, math_type, table)
            )
    suite.check("table of the planner", partial(keep_table, suite))
    suite.check("state", partial(running_state, suite))
    suite.check("small batches", partial(small_batches, suite))
    suite.check("extraction", partial(extraction, suite))
    if not suite.smoke:
        suite.check("bytes written", partial(goals.bytes_written, suite))
    suite.summary += goals.lines(suite.result)
    for layer in LAYERS if not suite.smoke else ():
        if layer.name in COMPILED and suite.left() > 60:  # torch tunes them for minutes
            suite.check(f"compiled {layer.name}", partial(compiled, suite, layer))


def cuda_reason() -> str | None:
    """Why there are no CUDA kernels to time, or None."""
    loaded = dispatch.load("cuda")
    return loaded if isinstance(loaded, str) else None


def part(suite: Suite, name: str) -> None:
    """Compile a share of what is timed, and check nothing."""
    share, shares = map(int, name.split()[1:])
    every = [(layer, math_type) for layer in LAYERS for math_type in ("bf16", "tf32")]
    for layer, math_type in every[share::shares]:
        if suite.left() > 0:
            set_precision(math_type)
            small = replace(layer, batch=2)  # kernels do not depend on the batch
            for call in variants(small, math_type, suite).values():
                call()


def compiled(suite: Suite, layer: Layer) -> None:
    """What torch.compile makes of convolution, norm, activation and statistics."""
    eager = variants(layer, "bf16", suite)["eager"]
    call = torch.compile(eager, mode="max-autotune-no-cudagraphs")
    suite.result["bf16"][layer.name]["microseconds"]["compiled"] = suite.time(call)


def variants(layer: Layer, math_type: str, suite: Suite) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    x, weight, bias = layer_tensors(layer, math_type, suite.device)
    scale = torch.rand(layer.c_out, device=suite.device) + 0.5
    shift = torch.randn(layer.c_out, device=suite.device)
    where = geometry(layer)
    conv = (F.conv1d, F.conv2d, F.conv3d)[layer.rank - 1]
    y = channels_last(conv(x, weight, bias, **where))
    spatial = tuple(range(2, x.ndim))

    def eager(*, all_statistics=False):
        out = conv(x, weight, bias, **where)
        out = F.batch_norm(out, shift.to(out.dtype), scale.to(out.dtype))
        value = F.relu(out)
        found = [value.flatten(2).max(-1), torch.var_mean(value, spatial)]
        if all_statistics:
            found += [
                value.amin(spatial),
                (value > 0).sum(spatial),
                torch.histc(value.float(), 256),
            ]
        return found

    fused = partial(
        conv_reduce, x, weight, bias, **where, scale=scale, shift=shift, backend="triton"
    )
    hook = partial(channel_reduce, y, scale=scale, shift=shift, activation="relu", backend="triton")
    found = {
        "fused": partial(fused, activation="relu"),
        "fused, histogram": partial(fused, activation="relu", histogram=True),
        "fused, written": partial(fused, activation="relu", return_activation=True),
        "fused, NCHW input": partial(
            conv_reduce, x.contiguous(), weight, bias, **where, activation="relu", backend="triton"
        ),
        "conv": partial(conv, x, weight, bias, **where),
        "eager": eager,
        "eager_all": partial(eager, all_statistics=True),
        "hook": hook,
        "hook, histogram": partial(hook, histogram=True),
    }
    if cuda_reason() is None:
        plain = partial(channel_reduce, y, backend="cuda")
        found |= {
            "hook, cuda": partial(hook, backend="cuda"),
            "hook, cuda, plain": plain,  # of a value that exists: nothing to transform
            "hook, cuda, histogram": partial(plain, histogram=True),
            "hook, cuda, NCHW": partial(channel_reduce, y.contiguous(), backend="cuda"),
        }
        if layer.groups == layer.c_in and layer.rank < 3:
            cuda = partial(fused, activation="relu", backend="cuda")
            found |= {
                "fused, cuda": cuda,
                "fused, cuda, histogram": partial(cuda, histogram=True),
                "fused, cuda, written": partial(cuda, return_activation=True),
            }
    return found


def measure(suite: Suite, layer: Layer, math_type: str, table: dict) -> None:
    set_precision(math_type)
    times = {name: suite.time(call) for name, call in variants(layer, math_type, suite).items()}
    times["triton"] = times["fused"]
    for name in ("fused", "fused, written", "hook"):  # what a run would take
        extra = {"fused": "fused, cuda", "fused, written": "fused, cuda, written"}
        times[name] = times.get(extra.get(name, "hook, cuda"), times[name])
    times["comp"] = times["conv"] + times["hook"]
    predicted = floors(layer, math_type)
    width = 2 if math_type == "bf16" else 4
    table[layer.name] = {
        "microseconds": times,
        "predicted": predicted,
        "ratios": ratios(times),
        "predicted ratios": ratios(predicted),
        "TFLOP/s": layer.flops / times["fused"] / 1e6,
        "hook TB/s": layer.results * width / min(hooks(times)) / 1e6,
    }
    shown = " ".join(f"{k} {v:.2f}({ratios(predicted)[k]:.2f})" for k, v in ratios(times).items())
    table_of_planner(suite, layer, math_type, times)
    print(
        f"{math_type} {layer.name:28} {times['fused']:8.0f} us; x faster (predicted) {shown}",
        flush=True,
    )


def hooks(times: dict[str, float]) -> list[float]:
    """Reductions of a value that exists, without a histogram."""
    return [times[name] for name in ("hook", "hook, cuda, plain") if name in times]


def table_of_planner(suite: Suite, layer: Layer, math_type: str, times: dict) -> None:
    """What the planner reads, once it is kept as fastconv/run/measured/<device>.json."""
    entry = {
        "math": "half" if math_type == "bf16" else math_type,
        "c_in": layer.c_in,
        "c_out": layer.c_out,
        "out_size": layer.out_size,
        "kernel": (layer.kernel,) * layer.rank,
        "groups": layer.groups,
        "values": layer.results,
        "fused": times["fused"],
        "fused_written": times["fused, written"],
        "conv": times["conv"],
        "hook": times["hook"],
    }
    suite.result.setdefault("planner", []).append(entry)


def keep_table(suite: Suite) -> str | None:
    """Keep what the planner follows on this device; what is wrong, if anything."""
    known = suite.result.get("planner")
    if not known:
        return "no layer was timed"
    name = "smoke" if suite.smoke else torch.cuda.get_device_name()
    layers = [
        gpu_cost.Layer(**{k: _fixed(e[k]) for k in SHAPE}, stride=(), written=False, passes=0)
        for e in known
    ]
    fused = [gpu_cost.nearest_gain(layer, tuple(known)) > 1 for layer in layers]
    suite.result["would run fused"] = sum(fused) / len(fused)
    if not suite.smoke:
        path = suite.out / gpu_cost.file_of(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=1) + "\n")
        print(f"keep {path} as {gpu_cost.file_of(name)}")
    return None


def _fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def small_batches(suite: Suite) -> None:
    """Launch cost: plain calls, and the same replayed from a CUDA graph."""
    table = suite.result.setdefault("batch", {})
    for batch in (1,) if suite.smoke else (1, 8, 32):
        layer = replace(LAYERS[1].smoke() if suite.smoke else LAYERS[1], batch=batch)
        x, weight, bias = layer_tensors(layer, "bf16", suite.device)
        call = partial(conv_reduce, x, weight, bias, **geometry(layer), backend="triton")
        found = {"plain": suite.time(call)}
        if not suite.smoke:
            call()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call()
            found["graph"] = suite.time(graph.replay)
        table[batch] = found


def running_state(suite: Suite) -> None:
    """Top-k of 2048 channels over a batch of 256, and 2048 patches of 64x64."""
    channels, batch, patches = (4, 8, 4) if suite.smoke else (2048, 256, 2048)
    values = torch.randn(channels, batch, device=suite.device)
    samples = torch.arange(batch, device=suite.device).expand(channels, batch).contiguous()
    old = empty_topk(channels, 9, suite.device)[:3]
    x = torch.zeros(batch, 3, 224, 224, device=suite.device, dtype=torch.uint8)
    index = torch.randint(0, batch, (patches,), device=suite.device)
    start = torch.randint(-30, 200, (patches, 2), device=suite.device)
    table = suite.result.setdefault("state", {})
    for backend in ("triton",) if cuda_reason() else ("triton", "cuda"):
        merge = partial(topk_merge, *old, values, samples, samples, backend=backend)
        table[f"topk_merge, {backend}"] = suite.time(merge)
        cut = partial(gather_patches, x, index, start, 64, backend=backend)
        table[f"gather_patches, {backend}"] = suite.time(cut)


def extraction(suite: Suite) -> str | None:
    """ResNet-18, everything on, beside the plain forward."""
    import tempfile
    import time

    import models

    import fastconv

    model = models.resnet18().eval()
    data = torch.randn(8, 3, 32, 32) if suite.smoke else torch.randn(512, 3, 224, 224)

    def forward():
        with torch.inference_mode():
            for part in data.split(64):
                model.to(suite.device)(part.to(suite.device))

    def extract():
        with tempfile.TemporaryDirectory() as folder:
            fastconv.extract(model, data, f"{folder}/run.h5", device=suite.device, progress=False)

    table: dict[str, list[float]] = {"forward": [], "extract": []}
    for _ in range(1 if suite.smoke else 3):
        for call in (forward, extract):
            start = time.perf_counter()
            call()
            if not suite.smoke:
                torch.cuda.synchronize()
            table[call.__name__].append(time.perf_counter() - start)
    suite.result["extraction, seconds (the first of each warms up)"] = table
    return None
