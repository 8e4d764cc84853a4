"""Receptive fields of linear networks drawn at random, against impulses."""

import torch
import torch.nn.functional as F
from helpers.receptive_fields import Fn, check_impulses, positive
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn


def random_layers(draw) -> nn.Module:
    """A linear 1-D network with branches, of layers that a box can follow."""
    small = st.integers(1, 4)
    kinds = ["conv", "pool", "transposed", "nearest", "linear", "crop", "pad", "skip", "cat"]
    layers = []
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5)):
        k, s, d = draw(small), draw(small), draw(small)
        p = draw(st.integers(0, 4))
        if kind == "conv":
            layer = nn.Conv1d(1, 1, k, s, p, d, bias=False)
        elif kind == "pool":
            layer = nn.AvgPool1d(k, s, min(p, k // 2), ceil_mode=draw(st.booleans()))
        elif kind == "transposed":
            layer = nn.ConvTranspose1d(1, 1, k, s, p, dilation=d, bias=False)
        elif kind in ("nearest", "linear"):
            layer = nn.Upsample(scale_factor=draw(st.sampled_from([0.5, 1.5, 2, 3])), mode=kind)
        elif kind == "crop":
            layer = Fn(lambda m, x, k=k, s=s: x[..., k - 1 :: s])
        elif kind == "pad":
            layer = Fn(lambda m, x, k=k, p=p: F.pad(x, (p, k - 2)))
        elif kind == "skip":
            conv = nn.Conv1d(1, 1, 2 * k - 1, padding=(k - 1) * d, dilation=d, bias=False)
            layer = Fn(lambda m, x: m.conv(x) + x, conv=conv)
        else:
            convs = {
                "a": nn.Conv1d(1, 1, 3, s, 1, bias=False),
                "b": nn.Conv1d(1, 1, 1, s, bias=False),
            }
            layer = Fn(lambda m, x: m.out(torch.cat([m.a(x), m.b(x)], 1)), **convs)
            layer.out = nn.Conv1d(2, 1, k, padding=min(p, k - 1), bias=False)
        layers.append(layer)
    return positive(nn.Sequential(*layers))


@settings(max_examples=150)
@given(st.data(), st.integers(9, 17))
def test_random_linear_nets(data, size):
    assume(check_impulses(random_layers(data.draw), (size,)))


def random_image_layers(draw) -> nn.Module:
    """A linear 2-D network, mostly of transposed convolutions, the dimensions unlike each other."""
    kinds = ["transposed", "transposed", "conv", "pool", "skip", "up"]
    layers = []
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4)):
        k, s, d, p = (draw(st.tuples(st.integers(a, b), st.integers(a, b))) for a, b in SHAPES)
        if kind == "conv":
            layer = nn.Conv2d(1, 1, k, s, p, d, bias=False)
        elif kind == "transposed":
            extra = tuple(draw(st.integers(0, max(a, b) - 1)) for a, b in zip(s, d, strict=True))
            layer = nn.ConvTranspose2d(1, 1, k, s, p, extra, bias=False, dilation=d)
        elif kind == "pool":
            layer = nn.AvgPool2d(k, s, tuple(v // 2 for v in k))
        elif kind == "up":
            layer = nn.Upsample(scale_factor=s)
        else:
            pads = tuple(b * (a - 1) for a, b in zip(k, d, strict=True))
            wide = tuple(2 * a - 1 for a in k)
            conv = nn.Conv2d(1, 1, wide, padding=pads, dilation=d, bias=False)
            layer = Fn(lambda m, x: m.conv(x) + x, conv=conv)
        layers.append(layer)
    return positive(nn.Sequential(*layers))


SHAPES = ((1, 3), (1, 3), (1, 2), (0, 2))  # kernel, stride, dilation, padding: from, to


@settings(max_examples=60)
@given(st.data(), st.tuples(st.integers(4, 7), st.integers(4, 7)))
def test_random_linear_image_nets(data, size):
    model = random_image_layers(data.draw)
    assume(check_impulses(model, size))
