"""Convolutions of real networks, by name, for every benchmark of `conv_reduce`."""

from __future__ import annotations

import os
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

    @property
    def out_size(self) -> tuple[int, ...]:
        sides = zip(self.size, self.kernel, self.stride, self.padding, strict=True)
        return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in sides)

    @property
    def flops(self) -> int:
        """Two per product."""
        count = 2 * self.batch * self.c_out * (self.c_in // self.groups)
        for n in (*self.out_size, *self.kernel):
            count *= n
        return count


def _case(name, batch, c_in, c_out, size, kernel, *, stride=1, groups=1, rank=2) -> ConvCase:
    def spread(value):
        return value if isinstance(value, tuple) else (value,) * rank

    kernel = spread(kernel)
    padding = tuple(k // 2 for k in kernel)
    case = ConvCase(name, batch, c_in, c_out, spread(size), kernel, spread(stride), padding, groups)
    if SMOKE:
        return replace(
            case,
            batch=1,
            size=tuple(min(n, 2 * k + 5) for n, k in zip(case.size, kernel, strict=True)),
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
