"""Values changed where they are: noise, blur, light, colour, compression, frequencies."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fastconv.errors import InputError
from fastconv.perturb.perturbation import (
    Perturbation,
    Scale,
    drawn,
    frames,
    from_pixels,
    to_pixels,
    unframed,
    value_range,
    within_range,
)


def noise(sigma: float, *, seed: int = 0, mean: Scale = 0.0, std: Scale = 1.0) -> Perturbation:
    """Add Gaussian noise of this standard deviation, in units of pixels of 0 ... 1."""
    if not sigma >= 0:
        raise InputError(f"noise needs a sigma of at least 0, got {sigma}")
    given = {"sigma": sigma, "seed": seed, "mean": mean, "std": std}
    return Perturbation("noise", _noise, given)


def blur(sigma: float) -> Perturbation:
    """Convolve every spatial dimension with a Gaussian of this standard deviation in positions."""
    if not sigma > 0:
        raise InputError(f"blur needs a sigma above 0, got {sigma}")
    return Perturbation("blur", _blur, {"sigma": sigma})


def brightness(factor: float, *, mean: Scale = 0.0, std: Scale = 1.0) -> Perturbation:
    """Multiply pixels."""
    return Perturbation("brightness", _brightness, {"factor": factor, "mean": mean, "std": std})


def contrast(factor: float, *, mean: Scale = 0.0, std: Scale = 1.0) -> Perturbation:
    """Multiply the difference of pixels from the sample's mean."""
    return Perturbation("contrast", _contrast, {"factor": factor, "mean": mean, "std": std})


def hue(turns: float, *, mean: Scale = 0.0, std: Scale = 1.0) -> Perturbation:
    """Turn colours about the grey axis of RGB; 1 is a whole turn."""
    return Perturbation("hue", _hue, {"turns": turns, "mean": mean, "std": std})


def jpeg(quality: int, *, mean: Scale = 0.0, std: Scale = 1.0) -> Perturbation:
    """Compress pictures of 1 or 3 channels as JPEG of this quality (1 ... 95), and read them.

    Its 256 levels span 0 ... 1, or the range of the sample where that is wider.
    """
    if not 1 <= quality <= 95:
        raise InputError(f"jpeg needs a quality from 1 to 95, got {quality}")
    return Perturbation("jpeg", _jpeg, {"quality": quality, "mean": mean, "std": std})


def frequency(cutoff: float, keep: str = "low") -> Perturbation:
    """Keep frequencies up to a share of the Nyquist frequency, or those above it and the mean.

    Args:
        cutoff: 0 ... 1, of 0.5 cycles a position; the same in every direction.
        keep: "low" or "high".
    """
    if keep not in ("low", "high") or not 0 < cutoff <= 1:
        raise InputError(f"frequency needs 0 < cutoff <= 1 and low or high, got {cutoff}, {keep!r}")
    return Perturbation("frequency", _frequency, {"cutoff": cutoff, "keep": keep})


def _noise(
    batch: Tensor, samples: Tensor, sigma: float, seed: int, mean: Scale, std: Scale
) -> Tensor:
    shape = tuple(batch.shape[1:])
    normal = drawn(batch, samples, seed, lambda g: g.standard_normal(shape, np.float32))
    pixels = to_pixels(batch, mean, std)
    return from_pixels(within_range(normal.mul_(sigma).add_(pixels), pixels), mean, std)


def _blur(batch: Tensor, samples: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)
    at = torch.arange(radius + 1, dtype=torch.float64)
    weight = torch.exp(-(at**2) / (2 * sigma**2))
    weights = (weight / (2 * weight.sum() - weight[0])).tolist()  # of distances from the middle
    for dim in range(2, batch.ndim):
        batch = _convolved(batch, dim, weights)
    return batch


def _convolved(given: Tensor, dim: int, weights: list[float]) -> Tensor:
    """Convolve a dimension with a kernel by its weights from the middle on; edges go on."""
    size, radius = given.shape[dim], len(weights) - 1
    padding = [0] * (2 * (given.ndim - 2))
    last = 2 * (given.ndim - 1 - dim)  # F.pad counts from the last dimension
    padding[last] = padding[last + 1] = radius
    padded = F.pad(given, padding, mode="replicate")
    found = padded.narrow(dim, radius, size) * weights[0]
    pair = torch.empty_like(found)
    for distance, weight in enumerate(weights[1:], 1):
        before, after = (padded.narrow(dim, radius + d, size) for d in (-distance, distance))
        found.add_(torch.add(before, after, out=pair), alpha=weight)
    return found


def _brightness(batch: Tensor, samples: Tensor, factor: float, mean: Scale, std: Scale) -> Tensor:
    pixels = to_pixels(batch, mean, std)
    return from_pixels(within_range(pixels * factor, pixels), mean, std)


def _contrast(batch: Tensor, samples: Tensor, factor: float, mean: Scale, std: Scale) -> Tensor:
    pixels = to_pixels(batch, mean, std)
    grey = pixels.mean(tuple(range(1, batch.ndim)), keepdim=True)
    return from_pixels(within_range(grey + factor * (pixels - grey), pixels), mean, std)


def _hue(batch: Tensor, samples: Tensor, turns: float, mean: Scale, std: Scale) -> Tensor:
    if batch.shape[1] != 3:
        raise InputError(f"hue needs 3 channels (red, green, blue), got {batch.shape[1]}")
    # Rodrigues' rotation about (1, 1, 1) / sqrt(3): grey stays as it is
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = (cos * torch.eye(3) + sin * cross + (1 - cos) / 3).to(batch.device)
    pixels = to_pixels(batch, mean, std)
    turned = torch.einsum("dc,nc...->nd...", turn, pixels)
    return from_pixels(within_range(turned, pixels), mean, std)


def _jpeg(batch: Tensor, samples: Tensor, quality: int, mean: Scale, std: Scale) -> Tensor:
    if batch.shape[1] not in (1, 3):
        raise InputError(f"jpeg needs 1 or 3 channels, got {batch.shape[1]}")
    pixels = to_pixels(batch, mean, std)
    low, high = value_range(pixels.nan_to_num(0.0, 0.0, 0.0))
    shares = frames(((pixels - low) / (high - low)).clamp(0, 1), "jpeg")
    bytes_ = (shares * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
    read = np.stack([_as_jpeg(picture, quality) for picture in bytes_])
    changed = torch.from_numpy(read).to(batch.device).movedim(-1, 1).float() / 255
    return from_pixels(unframed(changed, batch) * (high - low) + low, mean, std)


def _as_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """[H, W, 1 or 3] uint8, compressed and read again."""
    buffer = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(
        buffer, "jpeg", quality=quality
    )
    with Image.open(buffer) as image:
        return np.asarray(image).reshape(picture.shape)


def _frequency(batch: Tensor, samples: Tensor, cutoff: float, keep: str) -> Tensor:
    dims = tuple(range(2, batch.ndim))
    squared = torch.zeros([1] * (batch.ndim - 2), device=batch.device)
    for axis, dim in enumerate(dims):
        size = batch.shape[dim]
        last = dim == batch.ndim - 1
        cycles = torch.fft.rfftfreq(size) if last else torch.fft.fftfreq(size)
        shape = [1] * len(dims)
        shape[axis] = len(cycles)
        squared = squared + cycles.to(batch.device).reshape(shape) ** 2
    low = squared.sqrt() <= cutoff * 0.5 + 1e-7
    kept = low if keep == "low" else ~low | (squared == 0)
    spectrum = torch.fft.rfftn(batch, dim=dims) * kept
    return torch.fft.irfftn(spectrum, s=batch.shape[2:], dim=dims)
