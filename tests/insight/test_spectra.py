"""Figures of kernels against their definitions."""

import numpy as np
import pytest
from scipy import signal

from fastconv.insight import spectra

SHAPES = [(4, 3, 5), (4, 2, 3, 5), (3, 2, 3, 4, 5), (2, 1, 1, 7)]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_autocorrelation_is_that_of_scipy(shape):
    weight = random(*shape)
    found = spectra.autocorrelation(weight)
    for lags, filter_ in zip(found, weight, strict=True):
        wanted = sum(signal.correlate(w, w, "full", "direct") for w in filter_)
        np.testing.assert_allclose(lags, wanted, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetry_is_the_extreme_of_the_convolution_with_itself(shape):
    weight = random(*shape)
    for value, filter_ in zip(spectra.symmetry(weight), weight, strict=True):
        mirrored = sum(signal.convolve(w, w, "full", "direct") for w in filter_)
        best = mirrored.ravel()[np.abs(mirrored).argmax()]
        np.testing.assert_allclose(value, best / (filter_**2).sum(), atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "factor", "dilation"),
    [
        ((3, 2, 5), (2,), (1,)),
        ((3, 2, 3, 5), (2, 3), (1, 2)),
        ((2, 1, 3, 3, 2), (2, 1, 2), (1, 1, 1)),
    ],
)
def test_energy_above_nyquist_is_the_integral_of_the_spectrum(shape, factor, dilation):
    weight = random(*shape)
    total = (weight**2).reshape(len(weight), -1).sum(1)
    waves = []
    nodes, strengths = np.polynomial.legendre.leggauss(64)
    for k, f, d in zip(shape[2:], factor, dilation, strict=True):
        frequency = nodes / (2 * f)  # the band [-1 / 2f, 1 / 2f]
        wave = np.exp(-2j * np.pi * np.outer(frequency, np.arange(k) * d))
        waves.append((wave, strengths / (2 * f)))
    spectrum = weight.astype(complex)
    for wave, _ in waves:  # each step puts the frequency axis last
        spectrum = np.tensordot(spectrum, wave, ([2], [1]))
    power = (np.abs(spectrum) ** 2).sum(1)
    for _, strengths in waves:
        power = np.tensordot(power, strengths, ([1], [0]))
    np.testing.assert_allclose(
        spectra.energy_above(weight, factor, dilation), 1 - power / total, atol=1e-9
    )


def test_white_noise_has_as_much_energy_above_nyquist_as_the_band_is_wide():
    found = spectra.energy_above(random(4000, 1, 3, 3), (2, 2), (1, 1))
    assert found.mean() == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 1, 7), (1, 3, 5, 5), (1, 2, 3, 3, 3)])
def test_a_uniform_kernel_has_its_own_size_and_a_tap_has_one(shape):
    uniform = np.ones(shape)
    np.testing.assert_allclose(spectra.effective_size(uniform), shape[-1])
    tap = np.zeros(shape)
    tap[(0, 0, *(0,) * (len(shape) - 2))] = 3
    np.testing.assert_allclose(spectra.effective_size(tap), 1)


def test_separability_is_one_for_products_only():
    rows, columns, depths = random(3, 5)
    plane = np.multiply.outer(rows, columns)
    solid = np.multiply.outer(plane, depths)
    assert spectra.separability(plane[None, None])[0] == pytest.approx(1)
    assert spectra.separability(solid[None, None])[0] == pytest.approx(1)
    assert spectra.separability(np.eye(5)[None, None])[0] == pytest.approx(1 / 5)
    both = solid + np.multiply.outer(np.eye(5), np.ones(5))
    assert spectra.separability(both[None, None])[0] < 0.9


def test_peak_frequency_is_that_of_a_wave():
    x = np.arange(32)
    for frequency in (0.125, 0.25, 0.40625):
        wave = np.cos(2 * np.pi * frequency * x) * np.hanning(32)
        found = spectra.peak_frequency(wave[None, None])[0]
        assert found == pytest.approx(frequency, abs=1 / 512 + 1e-12)
    assert spectra.peak_frequency(np.ones((1, 2, 3, 3)))[0] == 0


def test_large_layers_are_transformed_in_blocks(monkeypatch):
    weight = random(7, 3, 3, 3)
    whole = spectra.autocorrelation(weight)
    monkeypatch.setattr(spectra, "_WEIGHTS", 60)
    np.testing.assert_array_equal(spectra.autocorrelation(weight), whole)
