from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gather_patches(input: Tensor, index: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    rank = len(size)
    window = [index.view(-1, *(1,) * rank)]
    inside = torch.ones((index.shape[0], *size), dtype=torch.bool, device=input.device)
    for d, (length, extent) in enumerate(zip(size, input.shape[2:], strict=True)):
        at = start[:, d, None] + torch.arange(length, device=input.device)  # [M, length]
        shape = [-1, *(length if e == d else 1 for e in range(rank))]
        inside &= ((at >= 0) & (at < extent)).view(shape)
        window.append(at.clamp(0, extent - 1).view(shape))
    patches = input.movedim(1, -1)[tuple(window)]  # [M, *size, C]
    patches = torch.where(
        inside[..., None], patches, torch.zeros((), dtype=input.dtype, device=input.device)
    )
    return patches.movedim(-1, 1).contiguous()
