from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastconv.backends.triton import place_patches


def supports(x: Tensor, index: Tensor, start: Tensor, size: Sequence[int]) -> str | None:
    return place_patches.unsupported(x, x.shape[1] * torch.Size(size).numel())


def run(x: Tensor, index: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    out = x.new_empty((index.shape[0], x.shape[1], *size))
    place_patches.run(x, index, start, None, None, None, out)
    return out
