"""What a tensor of the traced forward sees of the input, dimension by dimension."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from fastconv.geometry import MAX_PERIOD, FieldMap


@dataclass(frozen=True)
class Axis:
    """A tensor dimension whose positions follow one spatial dimension of the input."""

    source: int  # spatial dimension of the input
    field: FieldMap
    valid: tuple[int, int]  # positions outside see no pixel at all: zero padding


@dataclass(frozen=True)
class Reach:
    """What the elements of a tensor see: local along `axes`, everything along `whole`."""

    axes: tuple[Axis | None, ...]  # per tensor dimension
    whole: frozenset[int] = frozenset()  # input dimensions seen from end to end
    exact: bool = True
    uneven: bool = False  # channels differ: the boxes hold what any of them sees

    @property
    def sources(self) -> frozenset[int]:
        return self.whole | {axis.source for axis in self.axes if axis}

    @property
    def constant(self) -> bool:
        return not self.sources


def constant(ndim: int) -> Reach:
    return Reach((None,) * ndim)


def settle(reach: Reach, axes: Iterable[Axis | None], mixed: Iterable[int] = ()) -> Reach:
    """`reach` with new axes; sources that are mixed or lost on the way are seen whole."""
    axes = tuple(axes)
    found = [axis.source for axis in axes if axis]
    lost = reach.sources - set(found)
    twice = {source for source in found if found.count(source) > 1}
    whole = reach.whole | lost | twice | set(mixed)
    kept = tuple(axis if axis and axis.source not in whole else None for axis in axes)
    return replace(reach, axes=kept, whole=frozenset(whole))


def mix(reach: Reach, dims: Iterable[int], *, drop: bool = False) -> Reach:
    """An operation that combines positions along tensor dimensions, which may vanish."""
    chosen = {d % len(reach.axes) for d in dims}
    axes: list[Axis | None] = [None if d in chosen else a for d, a in enumerate(reach.axes)]
    if drop:
        axes = [axis for d, axis in enumerate(axes) if d not in chosen]
    return settle(reach, axes)


def combine(parts: Sequence[tuple[Reach, Sequence[int]]], shape: Sequence[int]) -> Reach:
    """Element-wise combination of (reach, shape) with broadcasting to `shape`."""
    axes: list[Axis | None] = []
    lost: set[int] = set()
    exact = all(reach.exact for reach, _ in parts)
    for d in range(-len(shape), 0):
        here = None
        for reach, size in parts:
            axis = reach.axes[d] if -d <= len(size) else None
            if axis is None:
                continue
            if size[d] != shape[d]:  # one position spread over many
                lost.add(axis.source)
            elif here is None:
                here = axis
            else:
                field = here.field.union(axis.field) if here.source == axis.source else None
                if field is None:
                    lost |= {here.source, axis.source}
                else:
                    low = min(here.valid[0], axis.valid[0])
                    high = max(here.valid[1], axis.valid[1])
                    exact = exact and here.valid == axis.valid
                    here = Axis(here.source, field, (low, high))
        axes.append(here)
    whole = frozenset().union(*(reach.whole for reach, _ in parts), lost)
    uneven = any(reach.uneven for reach, _ in parts)
    sources = frozenset().union(*(reach.sources for reach, _ in parts))
    kept = [axis if axis and axis.source not in whole else None for axis in axes]
    whole |= sources - {axis.source for axis in kept if axis}
    return settle(Reach(tuple(kept), whole, exact, uneven), kept)


def gather(
    reach: Reach,
    dims: Sequence[int],
    windows: Sequence[FieldMap | None],
    out: Tensor,
    sizes: Sequence[int],
    steps: Sequence[int] | None = None,
) -> Reach:
    """A sliding operation: along dims[i], position q of `out` looks through windows[i].

    `steps` are the distances of neighbouring taps; `sizes` the spatial size of the input.
    """
    axes = list(reach.axes)
    exact = reach.exact
    for i, (d, window) in enumerate(zip(dims, windows, strict=True)):
        axis = axes[d]
        if axis is None:
            continue
        field = window.through(axis.field) if window and window.period <= MAX_PERIOD else None
        if window is None or field is None:
            axes[d] = None
            continue
        starts, stops = window.box(np.arange(out.shape[d]))
        low, high = axis.valid
        seeing = np.flatnonzero((stops > low) & (starts < high))
        valid = (int(seeing[0]), int(seeing[-1]) + 1) if len(seeing) else (0, 0)
        exact = exact and len(seeing) == valid[1] - valid[0]
        step = steps[i] if steps else 1
        size = sizes[axis.source]
        # windows that reach over an end lose taps; the box clipped to the image stays tight only
        # if the taps next to the end all see that end of the image
        if ((starts < low) & (stops > low)).any():
            near = axis.field.box(np.arange(low, low + step))[0]
            exact = exact and high - low >= step and bool(near.max() <= 0)
        if ((starts < high) & (stops > high)).any():
            near = axis.field.box(np.arange(high - step, high))[1]
            exact = exact and high - low >= step and bool(near.min() >= size)
        axes[d] = Axis(axis.source, field, valid)
    return settle(replace(reach, exact=exact), axes)


def layer_fields(
    reach: Reach, shape: Sequence[int], sizes: Sequence[int]
) -> tuple[tuple[FieldMap, ...], str]:
    """Receptive field per spatial dimension of the input, for an output of `shape`, and status.

    "exact": clipped to the image, the box of a position is the bounding box of the pixels that it
    depends on; "bound": it contains them; "global": it is the whole image.
    """
    fields, local, exact = [], False, reach.exact and not reach.uneven
    for source, size in enumerate(sizes):
        d = 2 + source  # the stored position of a hit is read dimension by dimension
        axis = reach.axes[d] if d < len(shape) else None
        if axis is None or axis.source != source:
            fields.append(FieldMap.whole(size))
            continue
        fields.append(axis.field)
        local = True
        exact = exact and axis.valid == (0, shape[d])
    return tuple(fields), ("exact" if exact else "bound") if local else "global"
