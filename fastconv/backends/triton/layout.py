"""Tensors as kernels take them: dense, with two or five strides; ranks 1 to 3 as rank 3."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether x [N, C, *spatial] lies in memory as [N, *spatial, C], not as [N, C, *spatial]."""
    return not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def dense_activation(x: Tensor) -> tuple[Tensor, int, int]:
    """x (copied unless contiguous or channels_last), its channel and its position stride."""
    if is_channels_last(x):
        return x, 1, x.shape[1]
    return x.contiguous(), x.shape[2:].numel(), 1


def three(values: Sequence[int], fill: int) -> tuple[int, int, int]:
    """One value per spatial dimension (d, h, w); missing leading ones are filled."""
    filled = (fill,) * (3 - len(values)) + tuple(values)
    return filled[0], filled[1], filled[2]


def five_strides(x: Tensor) -> tuple[int, int, int, int, int]:
    """Strides of dense x [N, C, *spatial] as (n, c, d, h, w); missing dimensions have stride 0."""
    n, c, *spatial = x.stride()
    return (n, c, *three(spatial, 0))
