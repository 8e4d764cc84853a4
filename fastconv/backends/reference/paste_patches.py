from __future__ import annotations

import torch
from torch import Tensor


def paste_patches(
    patches: Tensor, index: Tensor, start: Tensor, inputs: Tensor, known: Tensor
) -> None:
    for patch, row, first in zip(patches, index.tolist(), start.tolist(), strict=True):
        inside, there = [slice(None)], [slice(None)]
        for at, size, extent in zip(first, patch.shape[1:], known.shape[1:], strict=True):
            low, high = (min(max(edge, 0), extent) for edge in (at, at + size))
            inside.append(slice(low - at, high - at))
            there.append(slice(low, high))
        seen = known[row][tuple(there[1:])]
        shown = inputs[row][tuple(there)]
        shown.copy_(torch.where(seen, shown, patch[tuple(inside)]))
        seen.fill_(True)
