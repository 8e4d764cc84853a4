"""Networks with planted filters, for the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def convolution(kernels: np.ndarray, bias: np.ndarray | None = None, **geometry) -> nn.Module:
    """A convolution with weights [C_out, C_in/groups, *kernel] and bias [C_out] or none."""
    weight = torch.as_tensor(np.asarray(kernels), dtype=torch.float32)
    c_in = weight.shape[1] * geometry.get("groups", 1)
    made = CONVOLUTIONS[weight.ndim - 2](c_in, len(weight), tuple(weight.shape[2:]), **geometry)
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(torch.zeros(len(weight)) if bias is None else torch.as_tensor(bias))
    return made


def noise(count: int, *shape: int, seed: int = 0) -> Tensor:
    """[count, *shape] of standard normal values."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def grid(size: int, rank: int) -> list[np.ndarray]:
    """Coordinates from the centre, one array per dimension, last dimension last."""
    return list(np.meshgrid(*[np.arange(size) - size // 2] * rank, indexing="ij"))


def gabor(size: int, degrees: float, phase: float, frequency: float = 0.2) -> np.ndarray:
    """[size, size], varying along x where degrees is 0; phase 0 is even, 90 odd."""
    y, x = grid(size, 2)
    along = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    wave = np.cos(2 * np.pi * frequency * along + np.radians(phase))
    return np.exp(-(x**2 + y**2) / 8) * wave


def bump(size: int, rank: int, width: float = 1.5) -> np.ndarray:
    """A Gaussian."""
    return np.exp(-sum(c.astype(float) ** 2 for c in grid(size, rank)) / (2 * width**2))


def centre_surround(size: int, rank: int) -> np.ndarray:
    """A narrow Gaussian minus a wide one of the same sum."""
    narrow, wide = bump(size, rank, 0.9), bump(size, rank, 1.8)
    return narrow / narrow.sum() - wide / wide.sum()
