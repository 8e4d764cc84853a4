"""Operations that see a window of their input: convolutions, pooling, resizing, padding."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from fastconv.capture.receptive_field.field import Reach, Window, gather, mix
from fastconv.capture.receptive_field.rules.rule import RULES, Context, rule, spread
from fastconv.capture.trace import CONVOLUTION_OPS, Op
from fastconv.geometry import FieldMap, adaptive_window, resize_window, transposed_window


@rule("convolution", "_convolution")
def _convolution(c: Context) -> Reach:
    x = c.first
    rank = x.ndim - 2
    kernel = c["weight"].shape[2:]
    stride, padding, dilation = (
        spread(c[name], rank) for name in ("stride", "padding", "dilation")
    )
    windows = [
        _transposed(*shape)
        if c["transposed"]
        else Window(FieldMap.affine(shape[1], -shape[2], shape[3] * (shape[0] - 1) + 1), shape[3])
        for shape in zip(kernel, stride, padding, dilation, strict=True)
    ]
    reach = gather(mix(c.seen(), [1]), range(2, x.ndim), windows, c.out)
    return replace(reach, uneven=reach.uneven and c["groups"] > 1)


def _transposed(kernel: int, stride: int, padding: int, dilation: int) -> Window:
    box, blind = transposed_window(kernel, stride, padding, dilation)
    return Window(box, dilation // math.gcd(dilation, stride), frozenset(blind), stride)


@rule("avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _pool(c: Context) -> Reach:
    rank = 3 if "3d" in c.op.name else 2
    kernel = spread(c["kernel_size"], rank)
    stride = spread(c["stride"] or kernel, rank)
    padding = spread(c["padding"], rank)
    dilation = spread(c.op.arguments.get("dilation", 1), rank)
    windows = [
        Window(FieldMap.affine(s, -p, d * (k - 1) + 1), d)
        for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)
    ]
    dims = range(c.first.ndim - rank, c.first.ndim)
    return gather(c.look(c.first), dims, windows, c.out)


@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_pool(c: Context) -> Reach:
    rank = 3 if "3d" in c.op.name else 2
    dims = range(c.first.ndim - rank, c.first.ndim)
    pooled = [d for d in dims if c.out.shape[d] == 1 < c.first.shape[d]]
    windows = [Window(adaptive_window(c.first.shape[d], c.out.shape[d])) for d in dims]
    return gather(mix(c.look(c.first), pooled), dims, windows, c.out)


RESIZES = {  # name without rank: (pixels looked at, half-pixel offset as in nearest-exact)
    "upsample_nearest": (1, False),
    "_upsample_nearest_exact": (1, True),
    "upsample_linear": (2, False),
    "upsample_bilinear": (2, False),
    "upsample_trilinear": (2, False),
    "upsample_bicubic": (4, False),
}


def _resize(c: Context) -> Reach:
    x, out = c.first, c.out
    taps, centred = RESIZES[c.op.name[:-2]]
    reach = c.look(x)
    windows = []
    for i, d in enumerate(range(2, x.ndim)):
        name = "scales" if x.ndim == 3 else "scales_" + "dhw"[5 - x.ndim + i]
        scale, corners = c[name], c.op.arguments.get("align_corners", False)
        if corners:
            ratio = Fraction(x.shape[d] - 1, max(out.shape[d] - 1, 1))
        elif scale:
            ratio = 1 / Fraction(scale).limit_denominator(4096)
        else:
            ratio = Fraction(x.shape[d], out.shape[d])
        offset = Fraction(0)
        if taps > 1 and not corners:
            offset = ratio / 2 - Fraction(1, 2)
        elif centred:
            offset = ratio / 2
        window, certain = resize_window(ratio, offset=offset, taps=taps)
        windows.append(Window(window))
        reach = replace(reach, exact=reach.exact and certain)
    return gather(reach, range(2, x.ndim), windows, out)


RULES.update(dict.fromkeys((f"{name}{r}d" for name in RESIZES for r in (1, 2, 3)), _resize))


@rule("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(c: Context) -> Reach:
    n = c.first.ndim
    if c.op.name == "pixel_shuffle":
        window = Window(FieldMap(1, (0,) * c["upscale_factor"], (1,) * c["upscale_factor"]))
    else:
        window = Window(FieldMap.affine(c["downscale_factor"], 0, c["downscale_factor"]))
    reach = mix(c.look(c.first), [n - 3])
    reach = replace(reach, uneven=True)  # each channel shows some of the pixels only
    return gather(reach, (n - 2, n - 1), (window, window), c.out)


@rule("constant_pad_nd")
def _constant_pad(c: Context) -> Reach:
    n, pad = c.first.ndim, c["pad"]
    dims = [n - 1 - i for i in range(len(pad) // 2)]
    windows = [Window(FieldMap.affine(1, -before)) for before in pad[::2]]
    reach = gather(c.look(c.first), dims, windows, c.out)
    channels = any(
        reach.axes[d] is None and any(pad[2 * i : 2 * i + 2]) for i, d in enumerate(dims)
    )
    return replace(reach, uneven=reach.uneven or channels)


@rule(*(f"{kind}_pad{r}d" for kind in ("reflection", "replication") for r in (1, 2, 3)))
def _mirror_pad(c: Context) -> Reach:
    """A padded position shows a pixel up to `far` away, which a wide convolution sees anyway."""
    n, pad = c.first.ndim, c["padding"]
    windows, dims = [], [n - 1 - i for i in range(len(pad) // 2)]
    for i, d in enumerate(dims):
        before, after = pad[2 * i : 2 * i + 2]
        far = max(before, after) * (2 if "reflection" in c.op.name else 1)
        if all(_extent(op, d) > far for op in c.readers(c.out)):
            far = 0
        windows.append(Window(FieldMap.affine(1, -before - far, 2 * far + 1)))
    reach = gather(c.look(c.first), dims, windows, c.out)
    return replace(reach, exact=False)


def _extent(op: Op, dim: int) -> int:
    """Positions along a dimension that an unpadded convolution spans; 0 for everything else."""
    if op.name not in CONVOLUTION_OPS or op.arguments["transposed"] or any(op.arguments["padding"]):
        return 0
    rank = op.inputs[0].ndim - 2
    dilation = spread(op.arguments["dilation"], rank)[dim - 2]
    return dilation * (op.arguments["weight"].shape[dim] - 1) + 1
