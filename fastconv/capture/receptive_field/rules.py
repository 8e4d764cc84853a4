"""Per ATen operation: what its output sees, given what its inputs see.

An operation without a rule here is taken to see everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from torch import Tensor

from fastconv.capture.receptive_field.field import (
    Axis,
    Reach,
    Window,
    combine,
    constant,
    gather,
    lose,
    mix,
    settle,
)
from fastconv.capture.trace import CONVOLUTION_OPS, Op
from fastconv.geometry import FieldMap, adaptive_window, resize_window, transposed_window


@dataclass(frozen=True)
class Context:
    """An operation and the receptive fields of its inputs, as a rule reads them."""

    op: Op
    look: Callable[[Tensor], Reach]  # what an input sees
    readers: Callable[[Tensor], list[Op]]  # operations that read an output of this one
    sizes: tuple[int, ...]  # spatial size of the input of the model

    def __getitem__(self, name: str) -> Any:
        return self.op.arguments[name]

    @property
    def first(self) -> Tensor:
        return self.op.inputs[0]

    @property
    def out(self) -> Tensor:
        return self.op.outputs[0]

    def seen(self) -> Reach:
        """The first input, which sees everything that the other inputs see, if anything."""
        others = [s for t in self.op.inputs[1:] for s in self.look(t).sources]
        reach = self.look(self.first)
        return settle(reach, reach.axes, others)


Rule = Callable[[Context], "Reach | list[Reach]"]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def pointwise(c: Context) -> Reach:
    parts = [(c.look(t), t.shape) for t in c.op.inputs]
    return combine(parts, c.out.shape) if parts else constant(c.out.ndim)


RULES.update(dict.fromkeys(("hardswish", "_prelu_kernel", "clone", "detach", "alias"), pointwise))
RULES.update(dict.fromkeys(("_to_copy", "lift_fresh", "expand", "where"), pointwise))


@rule("fill", "zero", "uniform", "normal")
def _constant(c: Context) -> Reach:
    return constant(c.out.ndim)


@rule("copy")
def _copy(c: Context) -> Reach:
    return combine([(c.look(c["src"]), c["src"].shape)], c.out.shape)


def _spread(values: int | Sequence[int], rank: int) -> list[int]:
    values = [values] if isinstance(values, int) else list(values)
    return values * rank if len(values) == 1 else values


@rule("convolution", "_convolution")
def _convolution(c: Context) -> Reach:
    x = c.first
    rank = x.ndim - 2
    kernel = c["weight"].shape[2:]
    stride, padding, dilation = (
        _spread(c[name], rank) for name in ("stride", "padding", "dilation")
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
    kernel = _spread(c["kernel_size"], rank)
    stride = _spread(c["stride"] or kernel, rank)
    padding = _spread(c["padding"], rank)
    dilation = _spread(c.op.arguments.get("dilation", 1), rank)
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
    dilation = _spread(op.arguments["dilation"], rank)[dim - 2]
    return dilation * (op.arguments["weight"].shape[dim] - 1) + 1


@rule("slice")
def _slice(c: Context) -> Reach:
    d, size = c["dim"] % c.first.ndim, c.first.shape[c["dim"]]
    start = min(max(c["start"] + size if (c["start"] or 0) < 0 else c["start"] or 0, 0), size)
    return gather(c.look(c.first), [d], [Window(FieldMap.affine(c["step"], start))], c.out)


@rule("split", "split_with_sizes")
def _split(c: Context) -> list[Reach]:
    d, offset, parts = c["dim"] % c.first.ndim, 0, []
    for out in c.op.outputs:
        window = Window(FieldMap.affine(1, offset))
        parts.append(gather(c.look(c.first), [d], [window], out))
        offset += out.shape[d]
    return parts


@rule("select", "unbind")
def _select(c: Context) -> list[Reach]:
    d = c["dim"] % c.first.ndim
    reach = lose(c.look(c.first), [d])
    kept = [axis for e, axis in enumerate(reach.axes) if e != d]
    return [settle(reach, kept)] * len(c.op.outputs)


@rule("cat")
def _cat(c: Context) -> Reach:
    tensors = [t for t in c.op.inputs if t.ndim == c.out.ndim]
    d = c["dim"] % c.out.ndim
    shape = list(c.out.shape)
    parts = [lose(c.look(t), [d]) for t in tensors]
    reach = combine(
        [
            (p, [*t.shape[:d], shape[d], *t.shape[d + 1 :]])
            for p, t in zip(parts, tensors, strict=True)
        ],
        shape,
    )
    return replace(reach, uneven=reach.uneven or not all(p.same(parts[0]) for p in parts))


@rule("stack")
def _stack(c: Context) -> Reach:
    d = c["dim"] % c.out.ndim
    parts = [c.look(t) for t in c.op.inputs]
    reach = combine([(p, c.first.shape) for p in parts], c.first.shape)
    uneven = reach.uneven or not all(p.same(parts[0]) for p in parts)
    axes = (*reach.axes[:d], None, *reach.axes[d:])
    return replace(settle(reach, axes), uneven=uneven)


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze")
def _view(c: Context) -> Reach:
    """Dimensions that keep their size and their place between the others keep their axis.

    So does the one after the batch dimension that is folded into it, and unfolded later.
    """
    reach, old, new = c.look(c.first), list(c.first.shape), list(c.out.shape)
    if 0 in old:
        return settle(reach, [None] * len(new))
    axes: list[Axis | None] = [None] * len(new)
    for d, axis in enumerate(reach.axes):
        if axis is None:
            continue
        before, size = math.prod(old[:d]), old[d]
        if d == 1 and new and size > 1 and old[0] * size == new[0]:
            axes[0] = replace(axis, folded=True)
            continue
        if axis.folded and new[:1] != old[:1]:
            if len(new) > 1 and new[1] == len(axis.starts) and new[0] * new[1] == old[0]:
                axes[1] = replace(axis, folded=False)
            continue
        places = [e for e in range(len(new)) if new[e] == size and math.prod(new[:e]) == before]
        if len(places) == 1 or (places and size > 1):
            axes[places[0]] = axis
    return settle(reach, axes)


@rule("permute", "transpose", "t")
def _permute(c: Context) -> Reach:
    reach = c.look(c.first)
    order = list(range(c.first.ndim))
    if c.op.name == "permute":
        order = [d % c.first.ndim for d in c["dims"]]
    else:
        a, b = (c["dim0"], c["dim1"]) if c.op.name == "transpose" else (0, -1)
        order[a], order[b] = order[b], order[a]
    return settle(reach, [reach.axes[d] for d in order])


@rule(
    "mean",
    "sum",
    "prod",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "linalg_vector_norm",
    "logsumexp",
    "any",
    "all",
    "argmax",
    "argmin",
)
def _reduce(c: Context) -> Reach:
    if len(c.op.inputs) > 1:
        return pointwise(c)
    dims = c.op.arguments.get("dim")
    dims = range(c.first.ndim) if dims is None or dims == [] else _spread(dims, 1)
    return mix(c.look(c.first), dims, drop=c.out.ndim < c.first.ndim)


@rule("_softmax", "_log_softmax", "cumsum", "cumprod", "flip", "roll", "index_select", "sort")
def _along_dims(c: Context) -> Reach:
    dims = c.op.arguments.get("dim", c.op.arguments.get("dims"))
    dims = range(c.first.ndim) if dims in (None, []) else _spread(dims, 1)
    return (mix if "softmax" in c.op.name else lose)(c.seen(), dims)


@rule(
    "native_layer_norm",
    "native_group_norm",
    "native_batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "batch_norm_elemt",
)
def _norm(c: Context) -> Reach:
    n = c.first.ndim
    if c.op.name == "native_layer_norm":
        dims = range(n - len(c["normalized_shape"]), n)
    elif c.op.name == "native_group_norm":
        dims = range(1, n)
    else:
        dims = range(2, n) if is_training_norm(c.op) else range(0)
    return mix(c.seen(), dims)


def is_training_norm(op: Op) -> bool:
    """Whether a batch norm takes its moments from the batch."""
    default = op.name in ("_native_batch_norm_legit", "_batch_norm_with_update")
    return bool(op.arguments.get("training", default))


@rule("linear")
def _linear(c: Context) -> Reach:
    return replace(mix(c.seen(), [-1]), uneven=False)


@rule("mm", "bmm", "addmm", "baddbmm")
def _matmul(c: Context) -> Reach:
    *bias, a, b = c.op.inputs
    left, right = mix(c.look(a), [-1]), mix(c.look(b), [-2])
    column = (*left.axes[:-1], None)
    row = (*right.axes[:-2], None, right.axes[-1])
    shape_a, shape_b = (*a.shape[:-1], b.shape[-1]), (*b.shape[:-2], a.shape[-2], b.shape[-1])
    parts = [(settle(left, column), shape_a), (settle(right, row), shape_b)]
    parts += [(c.look(t), t.shape) for t in bias]
    return combine(parts, c.out.shape)


def unknown(c: Context, out: Tensor) -> Reach:
    """Everything, if any input sees anything."""
    sources = {s for t in c.op.inputs for s in c.look(t).sources}
    reach = constant(out.ndim)
    return replace(reach, whole=frozenset(range(len(c.sizes)))) if sources else reach
