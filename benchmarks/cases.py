"""Convolutions for every benchmark of `conv_reduce`: of real networks by name, and random ones."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass, replace

SMOKE = os.environ.get("FASTCONV_BENCH_SMOKE") == "1"  # sizes so small that CI can prove they run


@dataclass(frozen=True)
class ConvCase:
    """One convolution followed by batch norm and ReLU, on a batch that takes well under 100 ms."""

    name: str
    batch: int
    c_in: int
    c_out: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int = 1
    dilation: int = 1

    @property
    def out_size(self) -> tuple[int, ...]:
        sides = zip(self.size, self.kernel, self.stride, self.padding, strict=True)
        return tuple((n + 2 * p - self.dilation * (k - 1) - 1) // s + 1 for n, k, s, p in sides)

    @property
    def flops(self) -> int:
        """Two per product."""
        count = 2 * self.batch * self.c_out * (self.c_in // self.groups)
        for n in (*self.out_size, *self.kernel):
            count *= n
        return count

    @property
    def read_bytes(self) -> int:
        """Of input and weight in float32."""
        weights = self.c_out * self.c_in // self.groups * math.prod(self.kernel)
        return 4 * (self.batch * self.c_in * math.prod(self.size) + weights)

    @property
    def values(self) -> int:
        """Of the output."""
        return self.batch * self.c_out * math.prod(self.out_size)


def _case(
    name, batch, c_in, c_out, size, kernel, *, stride=1, groups=1, dilation=1, rank=2
) -> ConvCase:
    def spread(value):
        return value if isinstance(value, tuple) else (value,) * rank

    kernel = spread(kernel)
    padding = tuple(dilation * (k // 2) for k in kernel)
    case = ConvCase(
        name, batch, c_in, c_out, spread(size), kernel, spread(stride), padding, groups, dilation
    )
    if SMOKE:
        return replace(
            case,
            batch=1,
            size=tuple(
                min(n, 2 * k * dilation + 5) for n, k in zip(case.size, kernel, strict=True)
            ),
        )
    return case


CONV_CASES = [
    _case("resnet.conv1_7x7s2", 16, 3, 64, 224, 7, stride=2),
    _case("resnet18.layer1_3x3", 16, 64, 64, 56, 3),
    _case("resnet18.layer2_3x3s2", 32, 64, 128, 56, 3, stride=2),
    _case("resnet18.layer2_3x3", 32, 128, 128, 28, 3),
    _case("resnet18.layer2_down_1x1s2", 32, 64, 128, 56, 1, stride=2),
    _case("resnet18.layer3_3x3", 32, 256, 256, 14, 3),
    _case("resnet18.layer4_3x3", 32, 512, 512, 7, 3),
    _case("resnet50.layer1_1x1_64_64", 16, 64, 64, 56, 1),
    _case("resnet50.layer1_1x1_64_256", 16, 64, 256, 56, 1),
    _case("resnet50.layer1_1x1_256_64", 16, 256, 64, 56, 1),
    _case("resnet50.layer3_1x1_1024_256", 32, 1024, 256, 14, 1),
    _case("resnet50.layer4_1x1_512_2048", 32, 512, 2048, 7, 1),
    _case("vgg16.conv1_1", 4, 3, 64, 224, 3),
    _case("vgg16.conv2_2", 2, 128, 128, 112, 3),
    _case("vgg16.conv4_2", 4, 512, 512, 28, 3),
    _case("mobilenetv2.depthwise_96_s2", 16, 96, 96, 112, 3, stride=2, groups=96),
    _case("mobilenetv2.depthwise_144", 16, 144, 144, 56, 3, groups=144),
    _case("mobilenetv2.depthwise_576", 32, 576, 576, 14, 3, groups=576),
    _case("convnext_tiny.depthwise_96_7x7", 8, 96, 96, 56, 7, groups=96),
    _case("convnext_tiny.depthwise_384_7x7", 16, 384, 384, 14, 7, groups=384),
    _case("resnet3d18.stem_3x7x7", 2, 3, 64, (16, 112, 112), (3, 7, 7), stride=(1, 2, 2), rank=3),
    _case("resnet3d18.layer2_3x3x3", 2, 128, 128, (8, 28, 28), 3, rank=3),
    _case("audio.conv1_k9", 16, 1, 64, 16000, 9, stride=4, rank=1),
    _case("audio.conv3_k9", 16, 128, 128, 1000, 9, rank=1),
]


def random_cases(seed: int = 14) -> list[ConvCase]:
    """Two of every kind of layer; each works for some ten milliseconds at most."""
    draw = random.Random(seed)
    return [_random_case(draw, kind) for kind in _KINDS for _ in range(2)]


# channels in, channels out, size, kernel, stride, and other options; None: as many as channels in
_Choices = tuple[list, list | None, list, list, list, dict]
_KINDS: dict[str, _Choices] = {
    "stem": ([1, 3, 4], [24, 32, 48, 64, 96], [96, 128, 160, 224], [3, 4, 5, 7], [2, 4], {}),
    "stem, stride 1": ([1, 3], [16, 32, 64], [32, 64, 112, 200], [3, 5], [1], {}),
    "3x3": ([32, 48, 96, 160], [32, 64, 112, 192], [20, 28, 40, 56], [3], [1], {}),
    "3x3, stride 2": ([24, 64, 128], [48, 96, 256], [20, 40, 56], [3, 5], [2], {}),
    "small map": ([192, 256, 384, 512], [256, 384, 512], [4, 6, 7, 8, 10, 12], [3], [1], {}),
    "1x1": ([16, 48, 160, 288, 640], [24, 96, 288, 512], [7, 14, 20, 28, 56], [1], [1], {}),
    "1x1, stride 2": ([64, 128, 320], [128, 256, 512], [14, 28, 40], [1], [2], {}),
    "grouped": ([64, 128, 256], [64, 128, 256], [14, 24, 36], [3], [1, 2], {"groups": [2, 4, 32]}),
    "depthwise 3x3": ([32, 72, 192, 480], None, [14, 28, 48, 80], [3], [1, 2], {}),
    "depthwise 5x5": ([40, 120, 240, 672], None, [7, 14, 28, 56], [5], [1, 2], {}),
    "depthwise 7x7": ([64, 96, 192, 384], None, [7, 14, 28, 48], [7], [1], {}),
    "dilated": ([32, 64, 128], [32, 64, 128], [24, 33, 48], [3], [1], {"dilation": [2, 4]}),
    "odd": ([5, 13, 37, 51], [7, 21, 53, 101], [15, 27, 41, 63], [1, 3, 5], [1, 2], {}),
    "1-D": ([1, 16, 64, 96], [32, 64, 128], [500, 2000, 8000], [3, 7, 15], [1, 2], {"rank": [1]}),
    "3-D": ([3, 16, 32, 64], [16, 32, 64], [7, 12, 20], [3], [1, 2], {"rank": [3]}),
}


def _random_case(draw: random.Random, kind: str) -> ConvCase:
    ins, outs, *rest, options = _KINDS[kind]
    c_in = draw.choice(ins)
    c_out = draw.choice(outs) if outs else c_in
    chosen = {name: draw.choice(values) for name, values in options.items()}
    groups = chosen.pop("groups", 1) if outs else c_in
    size, kernel, stride = (draw.choice(values) for values in rest)
    batch = draw.choice([1, 2, 4, 8, 16, 32, 64])
    while True:
        name = f"{kind}: {batch}x{c_in}->{c_out} @{size} k{kernel} s{stride}"
        name += "".join(f" {k} {v}" for k, v in chosen.items() if k != "rank")
        name += f" groups {groups}" if 1 < groups < c_in else ""
        case = _case(name, batch, c_in, c_out, size, kernel, stride=stride, groups=groups, **chosen)
        if batch == 1 or (case.flops < 5e9 and max(case.values * 4, case.read_bytes) < 64e6):
            return case
        batch //= 2
