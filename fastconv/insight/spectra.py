"""Figures of kernels as signals: sums over input channels, one figure a filter.

Every function takes weights [C, C_in, *kernel] and treats the C_in spatial kernels of a filter as
one signal of several channels: energies and correlations are added over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

_WEIGHTS = 2**20  # of which spectra are held at a time
FREQUENCIES = {1: 512, 2: 64, 3: 32}  # per dimension, over one cycle per tap, by rank


def autocorrelation(weight: np.ndarray) -> np.ndarray:
    """[C, *(2 kernel - 1)]: sum over positions of w(x) w(x + lag), lag 0 in the middle."""
    found = _products(weight, lambda spectrum: np.abs(spectrum) ** 2)
    return np.fft.fftshift(found, range(1, found.ndim))


def effective_size(weight: np.ndarray) -> np.ndarray:
    """[C]: width in taps of the uniform kernel whose energy has the same variance.

    sqrt(12 v + 1) per dimension, v the variance of the position weighted by w^2; the geometric
    mean over dimensions. A single tap has 1, a uniform kernel its own width.
    """
    energy = (weight.astype(np.float64) ** 2).sum(1)  # [C, *kernel]
    rank = energy.ndim - 1
    total = energy.reshape(len(energy), -1).sum(1)
    sizes = np.ones(len(energy))
    for axis in range(rank):
        others = tuple(1 + other for other in range(rank) if other != axis)
        along = energy.sum(others) / np.where(total > 0, total, 1)[:, None]  # [C, k]
        place = np.arange(along.shape[1])
        centre = along @ place
        variance = along @ place**2 - centre**2
        sizes *= np.sqrt(12 * np.maximum(variance, 0) + 1)
    return sizes ** (1 / rank)


def structure_tensor(weight: np.ndarray) -> np.ndarray:
    """[C, D, D]: sum over cells and channels of the outer product of the gradient.

    The gradient of a cell of 2^D taps is the mean difference between its sides, so the border of
    the kernel is no edge.

    Source: Di Zenzo, A note on the gradient of a multi-image, 1986.
    """
    weight = weight.astype(np.float64)
    rank = weight.ndim - 2
    gradients = []
    for axis in range(rank):
        found = weight
        for other in range(rank):
            low, high = _sides(found, 2 + other)
            found = high - low if other == axis else (high + low) / 2
        gradients.append(found.reshape(len(weight), -1))
    return np.stack([[np.einsum("ci,ci->c", a, b) for b in gradients] for a in gradients]).T


def _sides(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours along an axis; a single tap is its own neighbour."""
    if values.shape[axis] == 1:
        return values, values
    every: list[slice] = [slice(None)] * values.ndim
    low, high = every.copy(), every.copy()
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return values[tuple(low)], values[tuple(high)]


def orientation(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction of the strongest variation [C, D] (unit vectors) and its coherence [C] in [0, 1].

    Coherence is (a - b) / (a + b): a the largest eigenvalue, b the mean of the others; 1 in one
    dimension, 0 without any variation.
    """
    values, vectors = np.linalg.eigh(tensor)  # ascending
    largest = np.maximum(values[:, -1], 0)
    others = np.maximum(values[:, :-1], 0).mean(1) if values.shape[1] > 1 else 0 * largest
    total = largest + others
    coherence = np.where(total > 0, (largest - others) / np.where(total > 0, total, 1), 0)
    return vectors[:, :, -1], coherence


def peak_frequency(weight: np.ndarray) -> np.ndarray:
    """[C]: where the power spectrum is largest, in cycles per tap; 0 for a low-pass."""
    lags = autocorrelation(weight)
    rank = lags.ndim - 1
    size = [max(FREQUENCIES[rank], 2 * n) for n in lags.shape[1:]]
    grid = np.meshgrid(*(np.fft.fftfreq(n) for n in size), indexing="ij")
    length = np.sqrt(sum(axis**2 for axis in grid)).ravel()
    found = np.empty(len(lags))
    for i, lag in enumerate(lags):  # one at a time: the grids of a layer may not fit
        power = np.abs(np.fft.fftn(lag, size, range(rank))).ravel()
        found[i] = length[power >= power.max() * (1 - 1e-9)].min()
    return found


def separability(weight: np.ndarray) -> np.ndarray:
    """[C] in [0, 1]: share of the energy in the best separable kernel of every input channel.

    The largest squared singular value of the kernel over their sum; of three dimensions the
    smallest over their unfoldings. 1 for products of one-dimensional kernels, and only for them.
    """
    weight = weight.astype(np.float64)
    total = (weight**2).reshape(len(weight), -1).sum(1)
    shares = [np.ones(len(weight))]
    for axis in range(2, weight.ndim):
        unfolded = np.moveaxis(weight, axis, 2)
        unfolded = unfolded.reshape(*unfolded.shape[:3], -1)
        leading = np.linalg.svd(unfolded, compute_uv=False)[..., 0]  # [C, C_in]
        shares.append((leading**2).sum(1) / np.where(total > 0, total, 1))
    return np.minimum(1, np.min(shares, 0)) if weight.ndim > 3 else np.ones(len(weight))


def symmetry(weight: np.ndarray) -> np.ndarray:
    """[C] in [-1, 1]: 1 for a kernel that is even about some point, -1 for an odd one.

    sum w(x) w(2 c - x) / sum w^2 at the tap, or half-way point, c where its magnitude is largest,
    the same for all input channels.
    """
    flat = _products(weight, np.square).reshape(len(weight), -1)
    total = (weight.astype(np.float64) ** 2).reshape(len(weight), -1).sum(1)
    best = flat[np.arange(len(flat)), np.abs(flat).argmax(1)]
    return np.clip(best / np.where(total > 0, total, 1), -1, 1)


def one_signedness(weight: np.ndarray) -> np.ndarray:
    """[C] in [0, 1]: sum over input channels of |sum of w| over sum of |w|; 1 for a blur."""
    weight = weight.astype(np.float64).reshape(*weight.shape[:2], -1)
    total = np.abs(weight).sum((1, 2))
    return np.abs(weight.sum(2)).sum(1) / np.where(total > 0, total, 1)


def energy_above(
    weight: np.ndarray, factor: Sequence[float], dilation: Sequence[int]
) -> np.ndarray:
    """[C] in [0, 1]: share of the energy that lies above 1 / (2 factor) cycles per position.

    That is what folds back when every factor-th output of the kernel is kept, for an input whose
    spectrum is flat. Exact: the integral of the power spectrum over the band below is the sum of
    the autocorrelation times sinc(lag / factor) / factor.
    """
    lags = autocorrelation(weight)
    weights = np.ones(())
    for n, f, d in zip(lags.shape[1:], factor, dilation, strict=True):
        lag = (np.arange(n) - n // 2) * d
        weights = weights[..., None] * np.sinc(lag / f) / f
    total = lags.reshape(len(lags), -1)[:, math.prod(lags.shape[1:]) // 2]
    below = (lags * weights).reshape(len(lags), -1).sum(1)
    share = 1 - below / np.where(total > 0, total, 1)
    return np.where(total > 0, np.clip(share, 0, 1), 0)


def _products(weight: np.ndarray, square: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """[C, *(2 kernel - 1)] float64: squared spectra, summed over channels and transformed back."""
    size = [2 * k - 1 for k in weight.shape[2:]]
    step = max(1, _WEIGHTS * len(weight) // max(1, weight.size))
    blocks = []
    for first in range(0, len(weight), step):
        block = weight[first : first + step].astype(np.float64)
        spectrum = np.fft.fftn(block, size, range(2, weight.ndim))
        blocks.append(np.fft.ifftn(square(spectrum).sum(1), axes=range(1, weight.ndim - 1)).real)
    return np.concatenate(blocks)
