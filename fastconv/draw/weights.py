"""The kernels of filters as pictures: the one place that gives weights their colours."""

from __future__ import annotations

import numpy as np

from fastconv.draw.heat import diverging, kernel_tiles

BACKGROUND = (18, 18, 22)


def kernel_pictures(weight: np.ndarray, between: tuple[int, int, int] = BACKGROUND) -> np.ndarray:
    """Kernels [F, C, *kernel] as pictures, uint8 [F, H, W, 3]; each is scaled by its own peak.

    Those of 2-D filters over three channels are in colour, zero at mid grey; all others from blue
    over pale grey at zero to red, their channels side by side with `between` as colour of the gaps.
    """
    weight = np.nan_to_num(np.asarray(weight, np.float32))
    peak = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), initial=0)
    scaled = weight / np.where(peak > 0, peak, 1).reshape(-1, *(1,) * (weight.ndim - 1))
    if weight.ndim == 4 and weight.shape[1] == 3:
        return np.rint(127.5 + 127.5 * np.moveaxis(scaled, 1, -1)).astype(np.uint8)
    tiles = kernel_tiles(scaled)  # NaN between the channels
    pictures = diverging(tiles, 1)
    pictures[np.isnan(tiles)] = between
    return pictures
