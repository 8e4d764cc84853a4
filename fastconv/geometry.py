"""The one source of shape arithmetic: output sizes, padding, receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastconv.errors import InputError


def per_dimension(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """Spread a scalar over `rank` spatial dimensions, or check a sequence of that length."""
    values = (int(value),) * rank if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) == 1:
        values *= rank
    if len(values) != rank:
        raise InputError(f"{name} must be an int or {rank} ints, got {value!r}")
    return values


@dataclass(frozen=True)
class ConvGeometry:
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
            pairs = tuple((p, p) for p in before)
        return cls(tuple(int(k) for k in kernel), stride, pairs, dilation, int(groups))

    @property
    def extent(self) -> tuple[int, ...]:
        """Input positions spanned by one window."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Spatial output size for a spatial input size; entries below 1 mean an empty output."""
        return tuple(
            (n + before + after - e) // s + 1
            for n, (before, after), e, s in zip(
                size, self.padding, self.extent, self.stride, strict=True
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
