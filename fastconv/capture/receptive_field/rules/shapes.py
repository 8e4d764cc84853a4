"""Operations that cut, join and reorder dimensions."""

from __future__ import annotations

import math
from dataclasses import replace

from fastconv.capture.receptive_field.field import (
    Axis,
    Reach,
    Window,
    combine,
    gather,
    lose,
    settle,
)
from fastconv.capture.receptive_field.rules.rule import Context, rule
from fastconv.geometry import FieldMap


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
