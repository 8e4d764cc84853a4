"""Pictures of which a part, the shape or the texture is taken away."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.errors import InputError
from fastconv.perturb.perturbation import (
    Perturbation,
    Scale,
    frames,
    from_pixels,
    generators,
    require_rank,
    unframed,
)

_LEVELS = 64  # of grey, where the threshold of a silhouette is sought


def occlude(
    grid: int | None = None,
    mask: Any = None,
    *,
    share: float = 0.25,
    fill: float = 0.5,
    seed: int = 0,
    mean: Scale = 0.0,
    std: Scale = 1.0,
) -> Perturbation:
    """Cover a part of every picture.

    Args:
        grid: cover `share` of the cells of a grid of this many rows and columns (at least one
            cell), others for every sample.
        mask: cover where this array is true: [H, W] for all, or [N, H, W], a mask a sample.
        fill: the pixel value of what is covered.
    """
    if (grid is None) == (mask is None):
        raise InputError("occlude needs a grid (cells a side) or a mask, one of them")
    units = {"fill": fill, "mean": mean, "std": std}
    if grid is None:
        covered = np.asarray(mask).astype(bool)
        if covered.ndim not in (2, 3):
            raise InputError(f"mask must be [H, W] or [N, H, W], got {list(covered.shape)}")
        return Perturbation("occlude", _occlude_mask, {"mask": covered} | units)
    if grid < 1 or not 0 < share <= 1:
        raise InputError(f"occlude needs grid >= 1 and 0 < share <= 1, got {grid} and {share}")
    return Perturbation(
        "occlude", _occlude_grid, {"grid": grid, "share": share, "seed": seed} | units
    )


def shuffle_patches(grid: int = 4, *, seed: int = 0) -> Perturbation:
    """Put the cells of a grid into another order for every sample: texture stays, shape is lost.

    The rest where a size is no multiple of the grid stays where it is, at the lower right.
    """
    if grid < 2:
        raise InputError(f"shuffle_patches needs a grid of at least 2, got {grid}")
    return Perturbation("shuffle_patches", _shuffle_patches, {"grid": grid, "seed": seed})


def silhouette() -> Perturbation:
    """Leave the mean colours of figure and ground: shape stays, texture is lost.

    They are told apart by Otsu's threshold of the channels' mean, sample by sample.

    Source: Otsu 1979, "A threshold selection method from gray-level histograms".
    """
    return Perturbation("silhouette", _silhouette)


def _cover(batch: Tensor, covered: Tensor, fill: float, mean: Scale, std: Scale) -> Tensor:
    """Fill where `covered` [n or 1, H, W] is true, in every channel and frame."""
    covered = covered.reshape(len(covered), *[1] * (batch.ndim - 3), *covered.shape[1:])
    filled = from_pixels(torch.full_like(batch, fill), mean, std)
    return torch.where(covered.to(batch.device), filled, batch)


def _occlude_mask(
    batch: Tensor, samples: Tensor, mask: np.ndarray, fill: float, mean: Scale, std: Scale
) -> Tensor:
    require_rank(batch, "occlude", (2, 3))
    if mask.shape[-2:] != tuple(batch.shape[-2:]):
        raise InputError(f"the mask is {list(mask.shape[-2:])}, inputs {list(batch.shape[-2:])}")
    if mask.ndim == 3 and len(samples) and int(samples.max()) >= len(mask):
        raise InputError(f"there are {len(mask)} masks, none of sample {int(samples.max())}")
    own = mask[None] if mask.ndim == 2 else mask[samples.cpu().numpy()]
    return _cover(batch, torch.from_numpy(own), fill, mean, std)


def _occlude_grid(
    batch: Tensor,
    samples: Tensor,
    *,
    grid: int,
    share: float,
    seed: int,
    fill: float,
    mean: Scale,
    std: Scale,
) -> Tensor:
    require_rank(batch, "occlude", (2, 3))
    height, width = batch.shape[-2:]
    count = max(1, round(share * grid * grid))
    cells = np.zeros((len(samples), grid * grid), bool)
    for row, generator in zip(cells, generators(samples, seed), strict=True):
        row[generator.choice(grid * grid, count, replace=False)] = True
    rows, columns = (np.arange(size) * grid // size for size in (height, width))
    covered = cells.reshape(-1, grid, grid)[:, rows][:, :, columns]
    return _cover(batch, torch.from_numpy(covered), fill, mean, std)


def _shuffle_patches(batch: Tensor, samples: Tensor, grid: int, seed: int) -> Tensor:
    require_rank(batch, "shuffle_patches", (2, 3))
    h, w = batch.shape[-2] // grid, batch.shape[-1] // grid
    if h == 0 or w == 0:
        raise InputError(f"shuffle_patches: no {grid} cells in {list(batch.shape[-2:])}")
    pictures = batch.flatten(1, -3)  # [n, C, H, W], in memory mostly [n, H, W, C]
    inner = pictures[..., : h * grid, : w * grid].movedim(1, -1)
    orders = np.stack([g.permutation(grid * grid) for g in generators(samples, seed)])
    n, down, across = len(orders), *np.divmod(orders.reshape(-1, grid, 1, grid), grid)
    line = (np.arange(n).reshape(-1, 1, 1, 1) * grid + down) * h + np.arange(h)[:, None]
    strip = torch.from_numpy((line * grid + across).reshape(-1)).to(batch.device)
    strips = inner.reshape(n * grid * h * grid, -1)  # the lines of all cells, w * C each
    shuffled = strips.index_select(0, strip).reshape(inner.shape).movedim(-1, 1)
    if shuffled.shape == pictures.shape:
        return shuffled.reshape(batch.shape)
    changed = pictures.clone()
    changed[..., : h * grid, : w * grid] = shuffled
    return changed.reshape(batch.shape)


def _silhouette(batch: Tensor, samples: Tensor) -> Tensor:
    pictures = frames(batch, "silhouette")
    grey = pictures.mean(1, keepdim=True)  # [m, 1, H, W]
    figure = grey > _otsu(grey.flatten(1))[:, None, None, None]
    flat = torch.zeros_like(pictures)
    for region in (figure, ~figure):
        count = region.sum((2, 3), keepdim=True).clamp(min=1)
        flat = torch.where(region, (pictures * region).sum((2, 3), keepdim=True) / count, flat)
    return unframed(flat, batch)


def _otsu(values: Tensor) -> Tensor:
    """[m] thresholds of [m, p] that leave the largest variance between both sides."""
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    width = ((high - low) / _LEVELS).clamp(min=torch.finfo(values.dtype).tiny)
    level = ((values - low) / width).long().clamp(0, _LEVELS - 1)
    counts = torch.zeros(len(values), _LEVELS, dtype=torch.float64, device=values.device)
    counts.scatter_add_(1, level, torch.ones_like(values, dtype=torch.float64))
    below = counts.cumsum(1)
    levels = torch.arange(_LEVELS, dtype=torch.float64, device=values.device)
    moment = (counts * levels).cumsum(1)
    above = below[:, -1:] - below
    mean_below = moment / below.clamp(min=1)
    mean_above = (moment[:, -1:] - moment) / above.clamp(min=1)
    best = (below * above * (mean_below - mean_above) ** 2).argmax(1, keepdim=True)
    return (low + width * (best + 1)).squeeze(1)
