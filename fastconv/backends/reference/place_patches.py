from __future__ import annotations

from torch import Tensor

from fastconv.backends.reference.gather_patches import gather_patches
from fastconv.backends.reference.shrink_colours import colours


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
        patches = colours(patches, low, scale)
    out[slot[placed]] = patches
