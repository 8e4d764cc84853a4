"""What a GPU could do at best: floors in microseconds for a convolution, fused and not.

Every figure is a prediction from constants, those that the planner uses; none was measured here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fastconv.run.gpu_cost import DRAM, EPILOGUE_SLOTS, FMA, MMA, SLOTS  # rates of an H200

L2 = 5.5e12  # bytes per second from L2 to the multiprocessors
RESULT_BYTES = 56  # that the fused kernel writes for each (sample, channel)


@dataclass(frozen=True)
class Layer:
    """One convolution with padding kernel // 2, of a batch of 256."""

    name: str
    c_in: int
    c_out: int
    size: tuple[int, ...]
    kernel: int
    stride: int = 1
    groups: int = 1
    batch: int = 256

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def out_size(self) -> tuple[int, ...]:
        return tuple((n + self.kernel // 2 * 2 - self.kernel) // self.stride + 1 for n in self.size)

    @property
    def results(self) -> int:
        return self.batch * self.c_out * math.prod(self.out_size)

    @property
    def taps(self) -> int:
        return self.kernel**self.rank

    @property
    def flops(self) -> int:
        return 2 * self.results * self.c_in // self.groups * self.taps

    def smoke(self) -> Layer:
        """The same layer, small enough for the interpreter."""
        size = tuple(self.kernel + 2 for _ in self.size)
        groups = min(self.groups, 8)
        return replace(
            self, batch=2, size=size, groups=groups, c_in=8, c_out=8 if groups > 1 else 4
        )


LAYERS = [
    Layer("rn50 conv1 7x7s2 3->64@224", 3, 64, (224, 224), 7, 2),
    Layer("rn50 l1 3x3 64@56", 64, 64, (56, 56), 3),
    Layer("rn50 l2 3x3 128@28", 128, 128, (28, 28), 3),
    Layer("rn50 l3 3x3 256@14", 256, 256, (14, 14), 3),
    Layer("rn50 l4 3x3 512@7", 512, 512, (7, 7), 3),
    Layer("1x1 256->64@56", 256, 64, (56, 56), 1),
    Layer("1x1 64->256@56", 64, 256, (56, 56), 1),
    Layer("1x1 1024->256@14", 1024, 256, (14, 14), 1),
    Layer("mbv2 dw3x3 96 s2@112", 96, 96, (112, 112), 3, 2, groups=96),
    Layer("mbv2 dw3x3 32@112", 32, 32, (112, 112), 3, groups=32),
    Layer("mbv2 dw3x3 384@14", 384, 384, (14, 14), 3, groups=384),
    Layer("convnext dw7x7 96@56", 96, 96, (56, 56), 7, groups=96),
    Layer("vgg16 conv1_2 64@224", 64, 64, (224, 224), 3),
    Layer("conv3d 3^3 64@16x56x56", 64, 64, (16, 56, 56), 3),
    Layer("conv1d k9 64->128@16000", 64, 128, (16000,), 9),
]


def floors(layer: Layer, math_type: str) -> dict[str, float]:
    """Microseconds at least; math_type "bf16", or "tf32" on float32 storage.

    mma, mem, epi, l2: of the fused kernel on each resource; fused: the largest of the first three.
    conv: the convolution alone, its output written; comp: with one more read of it; eager: with
    batch norm, ReLU, maximum with index, variance; eager_all: also minimum, share, histogram.
    """
    width = {"bf16": 2, "tf32": 4}[math_type]
    x = layer.batch * layer.c_in * math.prod(layer.size) * width
    w = layer.c_out * layer.c_in // layer.groups * layer.taps * width
    y = layer.results * width
    mma = layer.flops / (
        FMA if layer.groups > 1 else MMA["half" if math_type == "bf16" else math_type]
    )
    mem = (x + w + layer.batch * layer.c_out * RESULT_BYTES) / DRAM
    epi = EPILOGUE_SLOTS * layer.results / SLOTS
    rereads = layer.taps / layer.stride**layer.rank * math.ceil(layer.c_out / 256)
    conv = max(mma, (x + w + y) / DRAM)
    eager = conv + 6 * y / DRAM
    seconds = {
        "mma": mma,
        "mem": mem,
        "epi": epi,
        "l2": 0.0 if layer.groups > 1 else x * rereads / L2,
        "fused": max(mma, mem, epi),
        "conv": conv,
        "comp": conv + y / DRAM,
        "eager": eager,
        "eager_all": eager + 14 * layer.results / DRAM,
    }
    return {name: 1e6 * value for name, value in seconds.items()}


def ratios(times: dict[str, float]) -> dict[str, float]:
    """How many times faster than each baseline the fused kernel is, in floors or measurements."""
    names = [name for name in ("conv", "comp", "eager", "eager_all") if times.get(name)]
    return {name: times[name] / times["fused"] for name in names}


def main() -> None:
    """Print the table."""
    for math_type in ("bf16", "tf32"):
        print(f"{math_type}, predicted microseconds at least (H200)")
        for layer in LAYERS:
            found = floors(layer, math_type)
            cells = " ".join(f"{name} {value:5.0f}" for name, value in found.items())
            print(f"{layer.name:28} {cells}")


if __name__ == "__main__":
    main()
