"""The part of the input that a tensor of the traced forward depends on, dimension by dimension."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from fastconv.geometry import MAX_PERIOD, FieldMap

NOTHING = np.iinfo(np.int64).max // 2  # start of the box of a position that sees no pixel


@dataclass(frozen=True, eq=False)
class Axis:
    """A tensor dimension whose positions follow one spatial dimension of the input.

    `field` is a rule for boxes of any position, not clipped. `starts` and `stops` are what the
    positions see in truth in an input of `size` pixels: zero padding, holes of dilation and phases
    that nothing reaches left out (start `NOTHING`, stop `-NOTHING` where that is everything).
    """

    source: int  # spatial dimension of the input
    size: int  # pixels along it
    field: FieldMap
    starts: np.ndarray  # [positions] int64
    stops: np.ndarray  # [positions] int64
    folded: bool = False  # into the batch dimension: the positions once for every sample

    @classmethod
    def of_input(cls, source: int, size: int) -> Axis:
        pixels = np.arange(size)
        return cls(source, size, FieldMap.affine(), pixels, pixels + 1)

    @property
    def blind(self) -> np.ndarray:
        """Positions that see no pixel, bool."""
        return self.starts == NOTHING

    @property
    def tight(self) -> bool:
        """Whether `field`, clipped to the input, says of every position what it sees."""
        starts, stops = self.field.box(np.arange(len(self.starts)))
        return bool(
            (starts.clip(0) == self.starts).all()
            and (stops.clip(max=self.size) == self.stops).all()
        )

    def same(self, other: Axis) -> bool:
        return (
            (self.source, self.field, self.folded) == (other.source, other.field, other.folded)
            and np.array_equal(self.starts, other.starts)
            and np.array_equal(self.stops, other.stops)
        )

    def union(self, other: Axis) -> Axis | None:
        """The positions of both; None where no rule holds the boxes of both."""
        if self is other:
            return self
        alike = (self.source, self.folded) == (other.source, other.folded)
        field = self.field.union(other.field) if alike else None
        if field is None:
            return None
        starts, stops = np.minimum(self.starts, other.starts), np.maximum(self.stops, other.stops)
        return replace(self, field=field, starts=starts, stops=stops)


@dataclass(frozen=True, eq=False)
class Reach:
    """Receptive fields of the elements of a tensor: local along `axes`, all of `whole`."""

    axes: tuple[Axis | None, ...]  # per tensor dimension
    whole: frozenset[int] = frozenset()  # input dimensions taken as seen from end to end
    exact: bool = True  # but for `axes` that are not tight
    uneven: bool = False  # channels differ: the boxes hold what any of them sees

    @property
    def sources(self) -> frozenset[int]:
        return self.whole | {axis.source for axis in self.axes if axis}

    @property
    def constant(self) -> bool:
        return not self.sources

    def same(self, other: Reach) -> bool:
        pairs = zip(self.axes, other.axes, strict=True)
        return (self.whole, self.exact, self.uneven) == (
            other.whole,
            other.exact,
            other.uneven,
        ) and all(a is b or (a is not None and b is not None and a.same(b)) for a, b in pairs)


def constant(ndim: int) -> Reach:
    return Reach((None,) * ndim)


def settle(reach: Reach, axes: Iterable[Axis | None], mixed: Iterable[int] = ()) -> Reach:
    """`reach` with new axes; sources that are mixed or lost on the way count as seen whole."""
    axes = tuple(axes)
    found = [axis.source for axis in axes if axis]
    lost = reach.sources - set(found)
    twice = {source for source in found if found.count(source) > 1}
    whole = reach.whole | lost | twice | set(mixed)
    kept = tuple(axis if axis and axis.source not in whole else None for axis in axes)
    exact = reach.exact and all(_sees_all(reach, source) for source in whole - reach.whole)
    return replace(reach, axes=kept, whole=frozenset(whole), exact=exact)


def _sees_all(reach: Reach, source: int) -> bool:
    """Whether every position sees a dimension of the input from end to end."""
    return any(
        axis is not None
        and axis.source == source
        and bool((axis.starts == 0).all() and (axis.stops == axis.size).all())
        for axis in reach.axes
    )


def mix(reach: Reach, dims: Iterable[int], *, drop: bool = False) -> Reach:
    """An operation that combines all positions along tensor dimensions, which may vanish."""
    chosen = {d % len(reach.axes) for d in dims}
    axes: list[Axis | None] = list(reach.axes)
    for d in chosen:
        axis = axes[d]
        if axis is not None:
            low, high = axis.starts.min(initial=NOTHING), axis.stops.max(initial=-NOTHING)
            starts, stops = np.full_like(axis.starts, low), np.full_like(axis.stops, high)
            axes[d] = replace(axis, starts=starts, stops=stops)
    mixed = replace(reach, axes=tuple(axes))
    kept = [None if d in chosen else axis for d, axis in enumerate(axes)]
    if drop:
        kept = [axis for d, axis in enumerate(kept) if d not in chosen]
    return settle(mixed, kept)


def lose(reach: Reach, dims: Iterable[int]) -> Reach:
    """An operation that moves positions along tensor dimensions in a way that is not followed."""
    chosen = {d % len(reach.axes) for d in dims}
    return settle(reach, [None if d in chosen else a for d, a in enumerate(reach.axes)])


def combine(parts: Sequence[tuple[Reach, Sequence[int]]], shape: Sequence[int]) -> Reach:
    """Element-wise combination of (reach, shape) with broadcasting to `shape`."""
    axes: list[Axis | None] = []
    lost: set[int] = set()
    exact = all(reach.exact for reach, _ in parts)
    sources = frozenset().union(*(reach.sources for reach, _ in parts))
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
                both = here.union(axis)
                if both is None:
                    lost |= {here.source, axis.source}
                else:  # a part that is blind here adds nothing along other dimensions either
                    alike = len(sources) == 1 or np.array_equal(here.blind, axis.blind)
                    exact = exact and alike
                    here = both
        axes.append(here)
    whole = frozenset().union(*(reach.whole for reach, _ in parts), lost)
    uneven = any(reach.uneven for reach, _ in parts)
    kept = [axis if axis and axis.source not in whole else None for axis in axes]
    whole |= sources - {axis.source for axis in kept if axis}
    exact = exact and all(whole <= reach.whole for reach, _ in parts if not reach.constant)
    return settle(Reach(tuple(kept), whole, exact, uneven), kept)


@dataclass(frozen=True)
class Window:
    """The positions of its input that a sliding operation reads, as a rule for every output.

    Output position q reads box.start(q), box.start(q) + step, ... below box.stop(q); nothing where
    q % period is in `blind` (the box of such a position is only a place near by).
    """

    box: FieldMap
    step: int = 1
    blind: frozenset[int] = field(default_factory=frozenset)
    period: int = 1

    def seen(self, axis: Axis, length: int) -> tuple[np.ndarray, np.ndarray]:
        """True boxes [length] of the outputs, from those of the positions that they read."""
        outputs = np.arange(length)
        first, end = self.box.box(outputs)
        starts, stops = np.full(length, NOTHING), np.full(length, -NOTHING)
        reads = ~np.isin(outputs % self.period, list(self.blind))
        for tap in range(0, int((end - first).max(initial=0)), self.step):
            at = first + tap
            there = reads & (at < end) & (at >= 0) & (at < len(axis.starts))
            starts[there] = np.minimum(starts[there], axis.starts[at[there]])
            stops[there] = np.maximum(stops[there], axis.stops[at[there]])
        return starts, stops


def gather(
    reach: Reach, dims: Sequence[int], windows: Sequence[Window | None], out: Tensor
) -> Reach:
    """A sliding operation: along dims[i], positions of `out` look through windows[i]."""
    axes = list(reach.axes)
    for d, window in zip(dims, windows, strict=True):
        axis = axes[d]
        if axis is None:
            continue
        axes[d] = None
        if window is not None and window.box.period <= MAX_PERIOD and not axis.folded:
            field = window.box.through(axis.field)
            if field is not None:
                seen = window.seen(axis, out.shape[d])
                axes[d] = Axis(axis.source, axis.size, field, *seen)
    return settle(reach, axes)


def layer_fields(
    reach: Reach, shape: Sequence[int], sizes: Sequence[int], *, folded: bool = False
) -> tuple[tuple[FieldMap, ...], str]:
    """Receptive field per spatial dimension of the input, for an output of `shape`, and status.

    "exact": clipped to the image, the box of a position is the bounding box of the pixels that it
    depends on; "bound": it contains them; "global": it is the whole image. With `folded`, the
    instances of a sample (frames or crops in the batch dimension) are the first position.
    """
    fields, local, exact = [], False, reach.exact and not reach.uneven
    dims = [*([0] if folded else []), *range(2, len(shape))]
    for source, size in enumerate(sizes):  # the stored position is read dimension by dimension
        axis = reach.axes[dims[source]] if source < len(dims) else None
        if axis is None or axis.source != source:
            fields.append(FieldMap.whole(size))
            exact = exact and source in reach.whole
            continue
        fields.append(axis.field)
        local = True
        exact = exact and axis.tight
    if not local:
        return tuple(fields), "bound" if folded else "global"
    return tuple(fields), "exact" if exact else "bound"
