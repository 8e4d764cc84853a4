"""The goals of the GPU kernels, as ratios, beside what was measured.

G1: layers bound by matrix units take at most 1.10 of cuDNN's time. G2: layers bound by memory take
less than cuDNN alone, as listed. G3: 3x3 with 64 channels reach 45 % of the bf16 product. G4: the
reductions of a value that exists reach 85 % (float32) and 70 % (bf16) of a copy's bandwidth. G5: a
fused kernel writes less than 2 % of the bytes of the value that it reduces.
"""

from __future__ import annotations

import shutil
from typing import Any

import torch

from device_stages.common import Suite
from fastconv.run.gpu_cost import MMA

# share of cuDNN's time that the fused kernel may take, at most
G1 = ("rn50 l2 3x3 128@28", "rn50 l3 3x3 256@14", "rn50 l4 3x3 512@7", "conv3d 3^3 64@16x56x56")
MOST = {
    **dict.fromkeys(G1, 1.10),
    "1x1 256->64@56": 0.9,
    "mbv2 dw3x3 96 s2@112": 0.9,
    "1x1 64->256@56": 0.6,
    "mbv2 dw3x3 32@112": 0.6,
    "rn50 conv1 7x7s2 3->64@224": 0.8,
}
G3 = ("rn50 l1 3x3 64@56", "vgg16 conv1_2 64@224")
G4 = {"tf32": 0.85, "bf16": 0.70}


def copy_bandwidth() -> float:
    """TB/s, bytes read and written."""
    import triton.testing

    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    milliseconds = triton.testing.do_bench(lambda: target.copy_(source), return_mode="median")
    return 2 * source.numel() / milliseconds / 1e9


def bytes_written(suite: Suite) -> str | None:
    """G5, by ncu: `why` does it for more kernels."""
    from device_stages import why

    profiler = shutil.which("ncu")
    if profiler is None:
        suite.result["bytes written"] = "not measured: ncu is not at hand"
        return None
    return why.profile(suite, profiler, "A", seconds=60)


def lines(result: dict[str, Any]) -> list[str]:
    """A line for each goal and layer: measured, wanted, predicted."""
    found = []
    table = result.get("bf16", {})
    for name, most in MOST.items():
        if name in table:
            times, floor = table[name]["microseconds"], table[name]["predicted"]
            share = times["fused"] / times["conv"]
            goal = "G1" if name in G1 else "G2"
            text = f"{goal} {name}: {share:.2f} of cuDNN's time, at most {most}; predicted "
            found.append(verdict(share <= most, f"{text}{floor['fused'] / floor['conv']:.2f}"))
    for name in G3:
        if name in table:
            share = table[name]["TFLOP/s"] * 1e12 / MMA["half"]
            text = f"G3 {name}: {share:.0%} of the product's rate, at least 45%"
            found.append(verdict(share >= 0.45, text))
    copy = result.get("copy, TB/s")
    for math_type, least in G4.items():
        for name, entry in result.get(math_type, {}).items():
            share = entry["hook TB/s"] / copy if copy else 0.0
            if share and entry["microseconds"]["conv"] > 100:  # what the L2 does not hold
                text = f"G4 {math_type} {name}: reads at {share:.0%} of a copy's rate, {least:.0%}"
                found.append(verdict(share >= least, text))
    written = result.get("A", {}).get("written, share of the output")
    if written is not None:
        found.append(verdict(written < 0.02, f"G5: {written:.2%} of the value written, below 2%"))
    state = result.get("state", {})
    found += [f"{name}: {value:.0f} us" for name, value in state.items()]
    return found


def verdict(met: bool, text: str) -> str:  # noqa: FBT001
    return f"{'met ' if met else 'MISS'} {text}"
