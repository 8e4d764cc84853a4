"""What a reduction is: its fields and its activations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastconv.histogram import bin_edges

ACTIVATIONS = (
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "sigmoid",
    "tanh",
    "hardswish",
)


class Reduction(NamedTuple):
    """Per (sample, channel) reductions over the positions of an activation.

    Non-finite values are counted in `nonfinite` and left out of everything else. Where a
    (sample, channel) has no finite value: sums 0, min +inf, max -inf, argmin and argmax -1.

    Example:
        >>> import fastconv, torch
        >>> x = torch.tensor([[[1.0, -2.0, 4.0], [torch.nan, 3.0, 3.0]]])  # [1, 2, 3]
        >>> found = fastconv.channel_reduce(x)
        >>> found.max.tolist(), found.argmax.tolist(), found.nonfinite.tolist()
        ([[4.0, 3.0]], [[2, 1]], [[0, 1]])
        >>> found.sum / (found.count - found.nonfinite)  # the means
        tensor([[1., 3.]], dtype=torch.float64)
    """

    sum: Tensor  # [N, C] float64
    sumsq: Tensor  # [N, C] float64
    min: Tensor  # [N, C] float32
    max: Tensor  # [N, C] float32
    argmax: Tensor  # [N, C] int64, flat position, first on ties
    argmin: Tensor  # [N, C] int64, flat position, first on ties
    positive: Tensor  # [N, C] int64, values > 0
    nonfinite: Tensor  # [N, C] int64
    count: int  # type: ignore[assignment]  # positions per sample
    histogram: Tensor | None = None  # [C, bins] int64 over the batch
    activation: Tensor | None = None  # [N, C, *spatial]


class PostOps(NamedTuple):
    """What a network goes on with: activation(scale * value + shift) of the value reduced."""

    scale: Tensor | None = None  # [C] float32
    shift: Tensor | None = None  # [C] float32
    activation: str | None = None  # of `ACTIVATIONS`


class CandidateLists(NamedTuple):
    """Lists of the values that reach a threshold of their channel, to be filled by a reduction.

    The order on a list is any. A count above the capacity tells that values are missing.
    """

    threshold: Tensor  # [C] float32, never NaN
    counts: Tensor  # [C] int32, how many reached it
    values: Tensor  # [C, capacity] float32
    places: Tensor  # [C, capacity] int64: row of the batch * positions + flat position
    largest: bool  # values >= threshold, else <= threshold

    @classmethod
    def create(cls, threshold: Tensor, capacity: int, *, largest: bool) -> CandidateLists:
        channels, device = len(threshold), threshold.device
        return cls(
            threshold,
            torch.zeros(channels, dtype=torch.int32, device=device),
            torch.empty((channels, capacity), device=device),
            torch.empty((channels, capacity), dtype=torch.int64, device=device),
            largest,
        )

    def pointers(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """As kernels take it."""
        return (*self[:4], self.values.shape[1])


def empty_fields(n: int, c: int, device: torch.device) -> tuple[Tensor, ...]:
    """Uninitialised tensors for the first eight fields of a `Reduction`, in order."""
    dtypes = (*(torch.float64,) * 2, *(torch.float32,) * 2, *(torch.int64,) * 4)
    return tuple(torch.empty((n, c), dtype=dtype, device=device) for dtype in dtypes)


def histogram_edges() -> Tensor:
    """Edges of the histogram bins of `channel_reduce` and `conv_reduce`.

    Log-linear bins taken from the float32 bits: 32 bins of equal width in every octave from 2^-20
    to 2^20, for both signs; one bin around zero for smaller magnitudes; one at each end for
    larger ones. A bin holds [lower, upper) for positive values, (lower, upper] for negative ones.

    Returns:
        [bins + 1] float64, ascending; the first is -inf, the last +inf.

    Example:
        >>> import torch
        >>> edges = histogram_edges()
        >>> edges[[0, -1]].tolist()
        [-inf, inf]
        >>> octave = edges[(edges >= 1) & (edges <= 2)]  # 32 bins of 1/32
        >>> len(octave), octave.diff().unique().tolist()
        (33, [0.03125])
    """
    return torch.from_numpy(bin_edges())
