"""Images reduced to small pictures (private: not one of the public ops)."""

from __future__ import annotations

from torch import Tensor

from fastconv import dispatch


def shrink_colours(input: Tensor, factor: int, low: Tensor, scale: Tensor) -> Tensor:
    """The mean of every window of factor x factor pixels, as a colour.

    Args:
        input: [N, 1 or 3, H, W] float32.
        factor: at the end of a dimension that it does not divide, windows are smaller.
        low, scale: [C] float32: a colour is (mean - low) * scale, rounded to 0..255; NaN is 0.

    Returns:
        [N, ceil(H / factor), ceil(W / factor), 3] uint8, contiguous.
    """
    args = (input, factor, low, scale)
    return dispatch.select("shrink_colours", "auto", input.device, *args)(*args)
