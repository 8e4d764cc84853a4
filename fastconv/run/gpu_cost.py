"""Which convolutions run fused on a GPU: by what was measured on it, else by a prediction.

`benchmarks/device_suite.py fast` measures layers; what it finds is kept as
`fastconv/run/measured/<device>.json`. Where a device has no such file, times are predicted from the
rates of an H200, which benchmarks/roofline.py uses as well. Neither looks at the batch size.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from fastconv.capture import CaptureTarget

MMA = {"half": 790e12, "tf32": 395e12, "ieee": 62e12}  # operations per second of an H200
FMA = 62e12  # without matrix units: depthwise
DRAM = 4.3e12  # bytes per second
SLOTS = 132 * 128 * 1.83e9  # values per second at one issue slot each
EPILOGUE_SLOTS = 20  # a value, with all statistics: counted in compiled code
REACHED = {"fused": 0.4, "separate": 0.5, "dram": 0.8}  # shares of these rates, assumed
MARGIN = 1.2  # a prediction must promise this much


@dataclass(frozen=True)
class Layer:
    """One convolution of one sample, and what its value is needed for."""

    math: str  # "half", "tf32" or "ieee"
    c_in: int
    c_out: int
    out_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    written: bool  # the network, or more than the reductions, reads the value
    passes: int  # over the output, of norm and activation, that the fused kernel saves

    @property
    def products(self) -> int:
        """Of one output value."""
        return self.c_in // self.groups * math.prod(self.kernel)

    @property
    def values(self) -> int:
        return self.c_out * math.prod(self.out_size)

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.c_out // self.groups < 16


def layer_of(target: CaptureTarget, *, written: bool) -> Layer:
    """The layer of a target whose `fusion` and `weight` are given."""
    info, weight, fusion = target.info, target.weight, target.fusion
    assert weight is not None and fusion is not None and info.stride is not None
    assert info.kernel is not None and info.groups is not None
    return Layer(
        math=_math(weight),
        c_in=weight.shape[1] * info.groups,
        c_out=weight.shape[0],
        out_size=info.size,
        kernel=info.kernel,
        stride=info.stride,
        groups=info.groups,
        written=written,
        passes=2 * len(fusion.absorbed),
    )


def fused_is_faster(layer: Layer, device: str) -> bool:
    """By the nearest layer measured on the device, else by prediction."""
    known = measured(device)
    if known:
        return nearest_gain(layer, known) > 1
    return _separate(layer) > MARGIN * _fused(layer)


def basis(device: str) -> str:
    """What choices on the device rest on, in words."""
    return f"measured on {device}" if measured(device) else "predicted: nothing was measured"


def file_of(device: str) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return Path(__file__).parent / "measured" / f"{name}.json"


@cache
def measured(device: str) -> tuple[dict, ...]:
    """What was measured: math, c_in, c_out, out_size, kernel, groups; microseconds of the parts."""
    path = file_of(device)
    return tuple(json.loads(path.read_text())) if path.exists() else ()


def graph_is_faster(device: str, batch_size: int) -> bool:
    """Whether a CUDA graph was measured to be faster than launches, on batches of that size."""
    path = file_of(device).with_suffix(".graph.json")
    return path.exists() and batch_size <= json.loads(path.read_text())["up_to_batch"]


def _math(weight: torch.Tensor) -> str:
    if weight.dtype != torch.float32:
        return "half"
    convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return "tf32" if convolution.fp32_precision == "tf32" else "ieee"


def nearest_gain(layer: Layer, known: tuple[dict, ...]) -> float:
    """Separate over fused time of the measured layer that is most like this one."""

    def distance(entry: dict) -> float:
        other = Layer(
            entry["math"], entry["c_in"], entry["c_out"], tuple(entry["out_size"]),
            tuple(entry["kernel"]), (), entry["groups"], written=False, passes=0,
        )  # fmt: skip
        sizes = [
            (layer.products, other.products),
            (layer.c_out, other.c_out),
            (math.prod(layer.out_size), math.prod(other.out_size)),
        ]
        far = sum(abs(math.log2(a / b)) for a, b in sizes)
        return far + 100 * (other.depthwise != layer.depthwise) + 50 * (other.math != layer.math)

    nearest = min(known, key=distance)
    fused = nearest["fused_written" if layer.written else "fused"]
    width = 4 if nearest["math"] in ("tf32", "ieee") else 2
    values = nearest["values"]  # of the batch that was measured
    saved = layer.passes * values * width / (REACHED["dram"] * DRAM) * 1e6
    return (nearest["conv"] + nearest["hook"] + saved) / fused


def _rate(layer: Layer, share: float) -> float:
    return share * (FMA if layer.depthwise else MMA[layer.math])


def _bytes(layer: Layer) -> tuple[float, float]:
    """Of the input (about: padding counts as none) and of the output."""
    width = 2 if layer.math == "half" else 4
    positions = math.prod(n * s for n, s in zip(layer.out_size, layer.stride, strict=True))
    return layer.c_in * positions * width, layer.values * width


def _fused(layer: Layer) -> float:
    """Seconds of one sample."""
    x, y = _bytes(layer)
    return max(
        2 * layer.values * layer.products / _rate(layer, REACHED["fused"]),
        (x + y * layer.written) / (REACHED["dram"] * DRAM),
        EPILOGUE_SLOTS * layer.values / SLOTS,
    )


def _separate(layer: Layer) -> float:
    """The network's convolution, norm and activation, and one read for the reductions."""
    x, y = _bytes(layer)
    dram = REACHED["dram"] * DRAM
    arithmetic = 2 * layer.values * layer.products / _rate(layer, REACHED["separate"])
    reductions = max(y / dram, EPILOGUE_SLOTS * layer.values / SLOTS)
    return max(arithmetic, (x + y) / dram) + layer.passes * y / dram + reductions
