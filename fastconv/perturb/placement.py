"""Pictures moved as a whole; in a clip or volume, the last two dimensions of every frame."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.errors import InputError
from fastconv.perturb.perturbation import Perturbation, require_rank

_PADDING = ("reflection", "border", "zeros")


def rotate(degrees: float, *, padding: str = "reflection") -> Perturbation:
    """Turn pictures counter-clockwise about their centre, bilinear.

    Args:
        degrees: the angle.
        padding: what lies beyond the edge: "reflection", "border" (its nearest value) or "zeros".
    """
    _check_padding(padding)
    return Perturbation("rotate", _rotate, {"degrees": degrees, "padding": padding})


def scale(factor: float, *, padding: str = "reflection") -> Perturbation:
    """Enlarge pictures about their centre (shrink them, for a factor below 1), bilinear."""
    _check_padding(padding)
    if not factor > 0:
        raise InputError(f"scale needs a factor above 0, got {factor}")
    return Perturbation("scale", _scale, {"factor": factor, "padding": padding})


def translate(dy: float, dx: float, *, padding: str = "reflection") -> Perturbation:
    """Move pictures down and to the right by pixels, bilinear between whole ones."""
    _check_padding(padding)
    return Perturbation("translate", _translate, {"dy": dy, "dx": dx, "padding": padding})


def flip(axis: int = -1) -> Perturbation:
    """Mirror a spatial dimension: -1 the last (left and right), -2 the one before."""
    if axis not in (-1, -2, -3):
        raise InputError(f"flip needs an axis of -1, -2 or -3, got {axis}")
    return Perturbation("flip", _flip, {"axis": axis})


def _check_padding(padding: str) -> None:
    if padding not in _PADDING:
        raise InputError(f"padding must be one of {', '.join(_PADDING)}, got {padding!r}")


def _rotate(batch: Tensor, samples: Tensor, degrees: float, padding: str) -> Tensor:
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return _resample(batch, "rotate", ((cos, -sin), (sin, cos)), (0, 0), padding)


def _scale(batch: Tensor, samples: Tensor, factor: float, padding: str) -> Tensor:
    return _resample(batch, "scale", ((1 / factor, 0), (0, 1 / factor)), (0, 0), padding)


def _translate(batch: Tensor, samples: Tensor, dy: float, dx: float, padding: str) -> Tensor:
    return _resample(batch, "translate", ((1, 0), (0, 1)), (-dx, -dy), padding)


def _flip(batch: Tensor, samples: Tensor, axis: int) -> Tensor:
    if -axis > batch.ndim - 2:
        raise InputError(f"flip({axis}) needs {-axis} spatial dimensions, got {batch.ndim - 2}")
    return batch.flip(axis)


def _resample(
    batch: Tensor,
    name: str,
    turn: tuple[tuple[float, float], tuple[float, float]],
    move: tuple[float, float],
    padding: str,
) -> Tensor:
    """Read each pixel (x, y) from the centre at `turn @ (x, y) + move`, in pixels."""
    require_rank(batch, name, (2, 3))
    pictures = batch.flatten(1, -3).contiguous()  # [n, C * T, H, W]
    grid = _grid(*pictures.shape[-2:], turn, move).to(batch.device).expand(len(batch), -1, -1, -1)
    read = F.grid_sample(pictures, grid, padding_mode=padding, align_corners=False)
    return read.reshape(batch.shape)


@lru_cache(1)
def _grid(
    height: int,
    width: int,
    turn: tuple[tuple[float, float], tuple[float, float]],
    move: tuple[float, float],
) -> Tensor:
    """Where each pixel is read, as `grid_sample` takes it: [H, W, 2], -1 ... 1, edge to edge."""
    y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    y, x = torch.meshgrid(y, x, indexing="ij")
    from_x = turn[0][0] * x + turn[0][1] * y + move[0]
    from_y = turn[1][0] * x + turn[1][1] * y + move[1]
    return torch.stack((from_x * 2 / width, from_y * 2 / height), -1)
