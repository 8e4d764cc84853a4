"""Signals [n, C, T] and clips [n, C, T, H, W] changed along their first spatial dimension."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastconv.errors import InputError
from fastconv.perturb.perturbation import Perturbation, generators, require_rank

_RANKS = (1, 3)


def time_shift(steps: int) -> Perturbation:
    """Move by whole steps, to later ones where positive; one end enters at the other."""
    return Perturbation("time_shift", _time_shift, {"steps": steps})


def stretch(factor: float) -> Perturbation:
    """Slow down about the middle (speed up, for a factor below 1), linear between steps.

    Beyond the ends the first and the last value go on.
    """
    if not factor > 0:
        raise InputError(f"stretch needs a factor above 0, got {factor}")
    return Perturbation("stretch", _stretch, {"factor": factor})


def drop_frames(share: float, *, seed: int = 0) -> Perturbation:
    """Repeat the frame before in place of this share of the frames, others for every sample."""
    if not 0 < share < 1:
        raise InputError(f"drop_frames needs a share between 0 and 1, got {share}")
    return Perturbation("drop_frames", _drop_frames, {"share": share, "seed": seed})


def shuffle_frames(*, seed: int = 0) -> Perturbation:
    """Put the frames into another order for every sample."""
    return Perturbation("shuffle_frames", _shuffle_frames, {"seed": seed})


def _time_shift(batch: Tensor, samples: Tensor, steps: int) -> Tensor:
    require_rank(batch, "time_shift", _RANKS)
    return batch.roll(steps, 2)


def _stretch(batch: Tensor, samples: Tensor, factor: float) -> Tensor:
    require_rank(batch, "stretch", _RANKS)
    length = batch.shape[2]
    middle = (length - 1) / 2
    at = ((torch.arange(length, dtype=torch.float64) - middle) / factor + middle).clamp(
        0, length - 1
    )
    before = at.floor().long()
    share = (at - before).float().to(batch.device)
    share = share.reshape(-1, *[1] * (batch.ndim - 3))
    after = (before + 1).clamp(max=length - 1)
    first, second = (batch.index_select(2, i.to(batch.device)) for i in (before, after))
    return first + share * (second - first)


def _drop_frames(batch: Tensor, samples: Tensor, share: float, seed: int) -> Tensor:
    require_rank(batch, "drop_frames", _RANKS)
    length = batch.shape[2]
    count = min(length - 1, max(1, round(share * length)))
    kept = np.ones((len(samples), length), bool)
    for row, generator in zip(kept, generators(samples, seed), strict=True):
        row[1 + generator.choice(length - 1, count, replace=False)] = False  # the first one stays
    return _in_order(batch, np.maximum.accumulate(np.where(kept, np.arange(length), 0), 1))


def _shuffle_frames(batch: Tensor, samples: Tensor, seed: int) -> Tensor:
    require_rank(batch, "shuffle_frames", _RANKS)
    orders = [g.permutation(batch.shape[2]) for g in generators(samples, seed)]
    return _in_order(batch, np.stack(orders))


def _in_order(batch: Tensor, order: np.ndarray) -> Tensor:
    """Frames in the order [n, T] of each sample."""
    index = torch.from_numpy(order).to(batch.device)
    index = index.reshape(len(batch), 1, -1, *[1] * (batch.ndim - 3))
    return batch.gather(2, index.expand(batch.shape))
