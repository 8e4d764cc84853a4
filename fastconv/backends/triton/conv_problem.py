"""A convolution as the kernels see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fastconv.backends.triton.layout import three
from fastconv.geometry import ConvGeometry


class Problem(NamedTuple):
    """Three spatial dimensions (d, h, w) whatever the rank."""

    size: tuple[int, int, int]
    out_size: tuple[int, int, int]
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    before: tuple[int, int, int]  # padding
    dilation: tuple[int, int, int]
    groups: int
    group_in: int
    group_out: int
    padded: bool  # some window reaches outside the input

    @property
    def positions(self) -> int:
        return self.out_size[0] * self.out_size[1] * self.out_size[2]

    @property
    def gemm_k(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.kernel[2] * self.group_in


def problem(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Problem:
    pairs = tuple(zip(padding[::2], padding[1::2], strict=True))
    geometry = ConvGeometry(tuple(weight.shape[2:]), tuple(stride), pairs, tuple(dilation), groups)
    return Problem(
        three(x.shape[2:], 1),
        three(geometry.output_size(x.shape[2:]), 1),
        three(geometry.kernel, 1),
        three(geometry.stride, 1),
        three(padding[::2], 0),
        three(geometry.dilation, 1),
        groups,
        weight.shape[1],
        weight.shape[0] // groups,
        padded=max(padding) > 0,
    )


class Given(NamedTuple):
    """What the epilogue of a convolution adds to its sums, and writes beside the reductions."""

    bias: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    histogram: Tensor | None  # [C_out, bins] int64, added into
    activation: Tensor | None  # [N, C_out, *spatial], written
    post_scale: Tensor | None  # of what is written, after the transform of what is reduced
    post_shift: Tensor | None
    candidates: tuple[Tensor, Tensor, Tensor, Tensor, int] | None  # `CandidateLists.pointers()`


class Epilogue(NamedTuple):
    """What happens to the sums of products."""

    given: tuple[Any, ...]  # the fields of `Given`
    ACTIVATION: str | None
    POST_ACTIVATION: str | None  # activation of what is written
    LARGEST: bool  # of the candidates

    @property
    def heavy(self) -> bool:
        """Whether more than the reductions is written, which costs registers."""
        return any(t is not None for t in self.given[3:])

    @property
    def lists(self) -> bool:
        return self.given[-1] is not None


def packed(weight: Tensor) -> Tensor:
    """[C_out, taps, C_in / groups]: channels next to each other, as the GEMM walks over them."""
    return weight.movedim(1, -1).contiguous().view(weight.shape[0], -1, weight.shape[1])
