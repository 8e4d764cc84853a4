"""Plans of the pictures of hits: which part of the input they show, and how far reduced."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fastconv.format.result import LayerInfo

MAX_POINTS = 48 * 48


@dataclass(frozen=True)
class PatchPlan:
    """Pictures of at most MAX_POINTS points, cut from the input after it was reduced by `factor`.

    Each point of the reduced input is the mean of factor^D pixels. Along a dimension where the box
    of a hit is at least as long as the input, a picture shows the whole input.
    """

    factor: int
    size: tuple[int, ...]  # points per spatial dimension
    whole: tuple[bool, ...]  # the picture shows the whole input along this dimension
    extent: tuple[int, ...]  # points of the whole reduced input

    @classmethod
    def create(cls, info: LayerInfo, input_size: tuple[int, ...]) -> PatchPlan:
        whole = tuple(
            info.status == "global" or f.size >= n
            for f, n in zip(info.fields, input_size, strict=True)
        )
        pixels = [
            n if all_of_it else f.size
            for f, n, all_of_it in zip(info.fields, input_size, whole, strict=True)
        ]
        for factor in itertools.count(1):
            size = tuple(-(-n // factor) for n in pixels)
            if np.prod(size) <= MAX_POINTS:
                return cls(factor, size, whole, tuple(-(-n // factor) for n in input_size))
        raise AssertionError  # count() does not end

    def start(self, box: np.ndarray) -> np.ndarray:
        """First points [..., D] of the pictures of boxes [..., D, 2], on the reduced input."""
        first = np.where(self.whole, 0, box[..., 0])
        return np.floor_divide(first, self.factor)


Window = tuple[slice, ...]


def window(
    start: Iterable[int], size: Sequence[int], extent: Sequence[int]
) -> tuple[Window, Window]:
    """Slices of a picture that starts at [D]: its part inside the reduced input, and its place."""
    inside, there = [], []
    for first, points, end in zip(start, size, extent, strict=True):
        low, high = (min(max(int(at), 0), end) for at in (first, first + points))
        inside.append(slice(low - int(first), high - int(first)))
        there.append(slice(low, high))
    return tuple(inside), tuple(there)


def channels_first(pictures: np.ndarray, *, images: bool) -> np.ndarray:
    """A view [..., channels, *spatial] of pictures; channels are last where they are images."""
    return np.moveaxis(pictures, -1, -3) if images else pictures


def framed(
    shown: np.ndarray,
    inside: tuple[slice, ...],
    size: Sequence[int],
    outside: np.ndarray | None,
) -> np.ndarray:
    """A picture [channels, *size] that shows a part [channels, ...] of an input at `inside`.

    Elsewhere it has the values [channels] of `outside`, or is zero.
    """
    picture = np.zeros((len(shown), *size), shown.dtype)
    if outside is not None:
        picture[...] = outside.reshape(-1, *(1 for _ in size))
    picture[(slice(None), *inside)] = shown
    return picture
