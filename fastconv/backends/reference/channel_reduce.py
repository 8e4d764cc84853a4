from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.histogram import BIN_SHIFT, BINS, BINS_PER_SIGN, FIRST_EXPONENT, ZERO_BIN
from fastconv.reduction import CandidateLists


def transform(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, activation: str | None
) -> Tensor:
    """activation(scale * x + shift) per channel, in float32 (float64 for float64)."""
    value = x if x.dtype == torch.float64 else x.float()
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if scale is not None:
        value = value * scale.to(value.dtype).view(shape)
    if shift is not None:
        value = value + shift.to(value.dtype).view(shape)
    return value if activation is None else getattr(F, activation)(value)


def channel_reduce(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    histogram: Tensor | None,
    candidates: CandidateLists | None = None,
) -> tuple[Tensor, ...]:
    value = transform(x, scale, shift, activation).contiguous()  # the same sums for every layout
    value = value.flatten(2) if value.ndim > 2 else value[..., None]
    if candidates is not None:
        fill_lists(value, candidates)
    return reduce_positions(value, histogram)


def fill_lists(value: Tensor, lists: CandidateLists) -> None:
    """List the finite values of value [N, C, P] that reach the threshold of their channel."""
    value = value.float().movedim(1, 0).flatten(1)  # [C, N * P]
    limit = lists.threshold[:, None]
    reached = value.isfinite() & ((value >= limit) if lists.largest else (value <= limit))
    lists.counts.add_(reached.sum(1, dtype=torch.int32))
    channel, place = reached.nonzero(as_tuple=True)
    slot = (reached.cumsum(1) - 1)[channel, place]
    fits = slot < lists.values.shape[1]
    channel, place, slot = channel[fits], place[fits], slot[fits]
    lists.values[channel, slot] = value[channel, place] + 0.0  # -0 becomes 0
    lists.places[channel, slot] = place


def reduce_positions(value: Tensor, histogram: Tensor | None) -> tuple[Tensor, ...]:
    """The reductions of value [N, C, P]; counts are added into histogram [C, bins]."""
    finite = value.isfinite()
    wide = torch.where(finite, value, 0.0).double()
    high = torch.where(finite, value, -torch.inf)
    low = torch.where(finite, value, torch.inf)
    some = finite.any(-1)
    if histogram is not None:
        add_histogram(value.float(), finite & value.float().isfinite(), histogram)
    return (
        wide.sum(-1),
        wide.square().sum(-1),
        low.amin(-1).float(),
        high.amax(-1).float(),
        torch.where(some, high.argmax(-1), -1),  # the first on ties
        torch.where(some, low.argmin(-1), -1),
        (wide > 0).sum(-1),
        (~finite).sum(-1),
    )


def add_histogram(value: Tensor, finite: Tensor, histogram: Tensor) -> None:
    """Count float32 value [N, C, P] where finite into histogram [C, bins]."""
    bits = value.view(torch.int32)
    first = (FIRST_EXPONENT + 127) << (23 - BIN_SHIFT)
    magnitude = ((bits & 0x7FFFFFFF) >> BIN_SHIFT) - first + 1  # 1 is the first bin beyond zero
    magnitude = magnitude.clamp(0, BINS_PER_SIGN + 1)
    index = ZERO_BIN + torch.where(bits < 0, -magnitude, magnitude)  # [N, C, P]
    channel = torch.arange(value.shape[1], device=value.device)[:, None] * BINS
    flat = (index + channel)[finite]
    histogram += torch.bincount(flat, minlength=histogram.numel()).view_as(histogram)
