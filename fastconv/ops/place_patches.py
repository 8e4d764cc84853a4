"""Cut patches out of a batch straight into their slots (private: not one of the public ops)."""

from __future__ import annotations

from torch import Tensor

from fastconv import dispatch


def place_patches(
    input: Tensor,
    index: Tensor,
    start: Tensor,
    slot: Tensor,
    out: Tensor,
    *,
    low: Tensor | None = None,
    scale: Tensor | None = None,
) -> None:
    """out[slot[m]] = input[index[m], :, start[m] : start[m] + size] where slot[m] >= 0.

    What is cut is not known on the host, and nothing here asks: a device goes on without it.

    Args:
        input: [N, C, *spatial] with 1 to 3 spatial dimensions; zero outside.
        index: [M] int64, rows of `input` where the slot is not negative.
        start: [M, D] int64.
        slot: [M] int64, no two equal but for negative ones.
        out: contiguous [S, C, *size] of the dtype of `input`.
        low, scale: [C] float32. With them `input` is float32 with 2 spatial dimensions and 1 or 3
            channels, and out is uint8 [S, *size, 3]: (value - low) * scale, rounded to 0..255.
    """
    args = (input, index, start, slot, low, scale, out)
    dispatch.select("place_patches", "auto", input.device, *args)(*args)
