from __future__ import annotations

import torch
from torch import Tensor

from fastconv.backends.reference.gather_patches import gather_patches


def place_patches(
    input: Tensor,
    index: Tensor,
    start: Tensor,
    slot: Tensor,
    low: Tensor | None,
    scale: Tensor | None,
    out: Tensor,
) -> None:
    placed = slot >= 0
    size = out.shape[2:] if low is None else out.shape[1:-1]
    patches = gather_patches(input, index[placed], start[placed], size)
    if low is not None and scale is not None:
        patches = (patches - low.view(-1, 1, 1)).mul_(scale.view(-1, 1, 1))
        patches = patches.nan_to_num_(0.0).clamp_(0, 255).round_().to(torch.uint8)
        patches = patches.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    out[slot[placed]] = patches
