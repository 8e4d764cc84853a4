"""The one source of shape arithmetic: output sizes, padding, receptive fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fastconv.errors import InputError

MAX_PERIOD = 4096  # of a receptive field map; longer ones come from odd resizes only


def per_dimension(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """Spread a scalar over `rank` spatial dimensions, or check a sequence of that length."""
    values = (int(value),) * rank if isinstance(value, int) else tuple([int(v) for v in value])
    if len(values) == 1:
        values *= rank
    if len(values) != rank:
        raise InputError(f"{name} must be an int or {rank} ints, got {value!r}")
    return values


class ConvGeometry(NamedTuple):
    """Shape of a convolution; every tuple has one entry per spatial dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]  # (before, after)
    dilation: tuple[int, ...]
    groups: int = 1

    @classmethod
    def create(
        cls,
        kernel: Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> ConvGeometry:
        """Read the arguments as `torch.nn.functional.conv*d` does, "same" and "valid" included."""
        rank = len(kernel)
        stride = per_dimension(stride, rank, "stride")
        dilation = per_dimension(dilation, rank, "dilation")
        for name, values in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
            if min(values) < 1:
                raise InputError(f"{name} must be at least 1 everywhere, got {tuple(values)}")
        if padding == "valid":
            pairs = ((0, 0),) * rank
        elif padding == "same":
            if max(stride) > 1:
                raise InputError(f"padding='same' needs stride 1, got stride {stride}")
            total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            pairs = tuple((t // 2, t - t // 2) for t in total)  # torch pads the end more
        elif isinstance(padding, str):
            raise InputError(f"padding must be ints, 'same' or 'valid', got {padding!r}")
        else:
            before = per_dimension(padding, rank, "padding")
            if min(before) < 0:
                raise InputError(f"padding must not be negative, got {before}")
            pairs = tuple([(p, p) for p in before])
        return cls(tuple(kernel), stride, pairs, dilation, int(groups))

    @property
    def extent(self) -> tuple[int, ...]:
        """Input positions spanned by one window."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Spatial output size for a spatial input size; entries below 1 mean an empty output."""
        each = zip(size, *self[:4], strict=True)
        return tuple([(n + a + b - d * (k - 1) - 1) // s + 1 for n, k, s, (a, b), d in each])

    def transposed_size(
        self, size: Sequence[int], output_padding: int | Sequence[int] = 0
    ) -> tuple[int, ...]:
        """Spatial output size of the transposed convolution of these parameters."""
        extra = per_dimension(output_padding, len(self.kernel), "output_padding")
        return tuple(
            (n - 1) * s - before - after + e + more
            for n, (before, after), e, s, more in zip(
                size, self.padding, self.extent, self.stride, extra, strict=True
            )
        )


@dataclass(frozen=True)
class FieldMap:
    """Where along one input dimension the positions of an output dimension look.

    Position p sees the input pixels [start[p % period] + p // period * advance, stop[...] + ...);
    nothing is clipped, so the box may reach into the padding. One period is enough for stacks of
    convolutions; transposed convolutions and upsampling need more.
    """

    advance: int
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def affine(cls, step: int = 1, offset: int = 0, extent: int = 1) -> FieldMap:
        """Position p sees [p * step + offset, p * step + offset + extent); by default itself."""
        return cls(step, (offset,), (offset + extent,))

    @classmethod
    def whole(cls, size: int) -> FieldMap:
        """Every position sees all of [0, size)."""
        return cls(0, (0,), (size,))

    @property
    def period(self) -> int:
        return len(self.start)

    @property
    def size(self) -> int:
        """Pixels in the widest box."""
        return max(b - a for a, b in zip(self.start, self.stop, strict=True))

    def box(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start and stop of the boxes of integer positions of any shape."""
        phase, shift = position % self.period, position // self.period * self.advance
        return np.asarray(self.start)[phase] + shift, np.asarray(self.stop)[phase] + shift

    def through(self, inner: FieldMap) -> FieldMap | None:
        """The boxes seen in two steps: `self` looks at positions of which `inner` has the boxes.

        None where the result has no period of at most MAX_PERIOD positions.
        """
        turns = inner.period // math.gcd(self.advance, inner.period)
        if self.period * turns > MAX_PERIOD:
            return None
        first, end = self.box(np.arange(self.period * turns))
        # the boxes of `inner` need not be in order within one period: look for the extremes
        near = np.arange(inner.period)
        starts = inner.box(np.minimum(first[:, None] + near, end[:, None] - 1))[0].min(1)
        stops = inner.box(np.maximum(end[:, None] - 1 - near, first[:, None]))[1].max(1)
        advance = self.advance * turns // inner.period * inner.advance
        return _shortest(advance, starts.tolist(), stops.tolist())

    def union(self, other: FieldMap) -> FieldMap | None:
        """The smallest boxes that hold both; None where the two drift apart, or see `through`."""
        if self.advance * other.period != other.advance * self.period:
            return None
        period = math.lcm(self.period, other.period)
        if period > MAX_PERIOD:
            return None
        boxes = [m.box(np.arange(period)) for m in (self, other)]
        starts = np.minimum(boxes[0][0], boxes[1][0])
        stops = np.maximum(boxes[0][1], boxes[1][1])
        return _shortest(period // self.period * self.advance, starts.tolist(), stops.tolist())


def _shortest(advance: int, starts: list[int], stops: list[int]) -> FieldMap:
    """The map with the shortest period that says the same."""
    n = len(starts)
    for period in range(1, n + 1):
        if n % period or advance * period % n:
            continue
        step = advance * period // n
        if all(
            values[i + period] - values[i] == step
            for values in (starts, stops)
            for i in range(n - period)
        ):
            return FieldMap(step, tuple(starts[:period]), tuple(stops[:period]))
    raise AssertionError("the period itself always fits")


def input_boxes(fields: Sequence[FieldMap], position: np.ndarray) -> np.ndarray:
    """Boxes of output positions in input pixels, unclipped.

    Args:
        fields: one map per spatial dimension of the input (`LayerInfo.fields`).
        position: [..., D] integers, index per spatial dimension of the output.

    Returns:
        [..., len(fields), 2] int64, start and stop. Input dimensions that the output lacks are
        seen whole.
    """
    position = np.asarray(position, dtype=np.int64)
    boxes = np.empty((*position.shape[:-1], len(fields), 2), dtype=np.int64)
    for i, field in enumerate(fields):
        along = position[..., i] if i < position.shape[-1] else np.zeros_like(boxes[..., i, 0])
        boxes[..., i, 0], boxes[..., i, 1] = field.box(along)
    return boxes


def transposed_window(
    kernel: int, stride: int, padding: int, dilation: int
) -> tuple[FieldMap, list[int]]:
    """Boxes that positions of a transposed convolution see of its input, and the blind phases.

    Output q sees the inputs i with q = i * stride - padding + r * dilation, 0 <= r < kernel. Where
    there is none, for the phases q % stride that are listed, the box is a place near by.
    """
    starts, stops, blind = [], [], []
    for phase in range(stride):
        u = phase + padding
        seen = [
            (u - r * dilation) // stride for r in range(kernel) if (u - r * dilation) % stride == 0
        ]
        if not seen:
            blind.append(phase)
        starts.append(min(seen, default=u // stride))
        stops.append(max(seen, default=u // stride) + 1)
    return _shortest(1, starts, stops), blind


def adaptive_window(size: int, output_size: int) -> FieldMap:
    """What positions of an adaptive pooling see of its input."""
    common = math.gcd(size, output_size)
    advance, period = size // common, output_size // common
    return FieldMap(
        advance,
        tuple(q * advance // period for q in range(period)),
        tuple(-(-(q + 1) * advance // period) for q in range(period)),
    )


def resize_window(
    ratio: Fraction, *, offset: Fraction = Fraction(0), taps: int
) -> tuple[FieldMap, bool]:
    """What positions of an interpolation see of its input, and whether rounding cannot change it.

    Position q looks at x = ratio * q + offset: at floor(x) for taps = 1 (nearest), else at the
    taps / 2 pixels on each side of x (2: linear, 4: cubic), or at x alone where that is a pixel.
    """
    period = ratio.denominator
    exact = period & (period - 1) == 0  # else x is rounded in float32
    starts, stops = [], []
    for q in range(period):
        x = ratio * q + offset
        floor, on_pixel = math.floor(x), x.denominator == 1
        reach = 0 if on_pixel else taps // 2
        start, stop = (floor - max(reach - 1, 0), floor + reach + 1 if reach else floor + 1)
        if on_pixel and not exact:  # x may come out a little smaller or larger
            start, stop = floor - max(taps // 2, 1), floor + taps // 2 + 1
        starts.append(start)
        stops.append(stop)
    return _shortest(ratio.numerator, starts, stops), exact
