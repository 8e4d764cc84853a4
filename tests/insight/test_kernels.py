"""The table of kernels: planted kinds are found, in one, two and three dimensions."""

import numpy as np
import pytest
from helpers.planted import bump, centre_surround, convolution, gabor, grid, noise
from torch import nn

import fastconv
from fastconv.errors import InputError
from fastconv.insight.kernels import describe

COLUMNS = [
    *("layer", "filter", "norm", "effective_size", "orientation", "frequency"),
    *("separability", "symmetry", "kind"),
]


def table_of(kernels, tmp_path, **geometry):
    """The table of a run of one convolution with these kernels [C_in, *kernel]."""
    weight = np.stack(kernels)
    data = noise(3, weight.shape[1], *(2 * k + 8 for k in weight.shape[2:]))
    layer = convolution(weight, **geometry)
    with fastconv.extract(layer, data, tmp_path / "run.h5", progress=False) as run:
        return fastconv.insight.kernels(run)


def planted(rank):
    """{kind: kernels [7, ...]} of the rank."""
    random = np.random.default_rng(5)
    *_, x = grid(7, rank)
    window = bump(7, rank, 2)
    kinds = {
        "low-pass": [bump(7, rank), np.ones((7,) * rank)],
        "edge": [window * np.sin(2 * np.pi * 0.2 * x), np.sign(x) * np.ones((7,) * rank)],
        "bar": [window * np.cos(2 * np.pi * 0.25 * x)],
        "noise": list(random.normal(size=(3, *(7,) * rank))) if rank > 1 else [],
        "zero": [np.zeros((7,) * rank)],
    }
    if rank > 1:
        kinds["blob"] = [centre_surround(7, rank), -centre_surround(7, rank)]
    return kinds


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_planted_kinds_are_named(rank, channels, tmp_path):
    pairs = [(kind, kernel) for kind, kernels in planted(rank).items() for kernel in kernels]
    mix = np.array([0.9, -1.2, 0.4])[:channels].reshape(-1, *(1,) * rank)
    table = table_of([mix * kernel for _, kernel in pairs], tmp_path)
    assert list(table.columns) == COLUMNS
    assert table["kind"].tolist() == [kind for kind, _ in pairs]
    assert not table.isna().to_numpy().any()


def test_the_direction_of_gabors_is_found_on_both_sides_of_their_phase():
    for degrees in (0, 15, 30, 45, 60, 90, 120, 150, 175):
        for phase, kind in ((0, "bar"), (90, "edge")):
            found = describe(gabor(9, degrees, phase)[None, None])
            turned = (found["orientation"][0] - degrees + 90) % 180 - 90
            assert abs(turned) < 4
            assert found["kind"][0] == kind
            assert found["frequency"][0] == pytest.approx(0.2, abs=0.04)


def test_classic_small_kernels():
    sobel = np.outer([1, 2, 1], [-1, 0, 1])
    kernels = {
        "edge": [sobel, sobel.T, [[0, -1, 1]] * 3, [[-1, -1, 0], [-1, 0, 1], [0, 1, 1]]],
        "bar": [[[-1, 2, -1]] * 3, [[0, 1, 0]] * 3],
        "blob": [[[0, -1, 0], [-1, 4, -1], [0, -1, 0]], [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]],
        "low-pass": [np.outer([1, 2, 1], [1, 2, 1]), np.ones((3, 3))],
    }
    for kind, examples in kernels.items():
        found = describe(np.asarray(examples, float)[:, None])
        assert found["kind"].tolist() == [kind] * len(examples)
    assert describe(sobel[None, None])["orientation"][0] == 0
    assert describe(sobel.T[None, None])["orientation"][0] == 90
    assert describe(np.ones((2, 4, 1, 1)))["kind"].tolist() == ["point", "point"]


def test_scale_changes_the_norm_alone():
    weight = np.random.default_rng(0).normal(size=(6, 2, 5, 5))
    one, many = describe(weight), describe(-40 * weight)
    np.testing.assert_allclose(many["norm"], 40 * one["norm"])
    for name in set(one) - {"norm", "kind"}:
        np.testing.assert_allclose(many[name], one[name], atol=1e-9)
    assert many["kind"].tolist() == one["kind"].tolist()


@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 5, 5), (16, 3, 3), (1, 5, 5, 5), (16, 9)])
def test_white_noise_is_called_noise(shape):
    weight = np.random.default_rng(1).normal(size=(500, *shape))
    assert (describe(weight)["kind"] == "noise").mean() > 0.95


def test_dilation_lowers_the_frequency(tmp_path):
    kernel = [np.array([[-1.0, 0, 1]])]
    one = table_of(kernel, tmp_path)["frequency"][0]
    (tmp_path / "run.h5").unlink()
    assert table_of(kernel, tmp_path, dilation=2)["frequency"][0] == one / 2


def test_a_run_without_kernels_says_so(tmp_path):
    data = noise(3, 2, 8, 8)
    options = {"layers": "0", "progress": False}
    run = fastconv.extract(nn.Sequential(nn.ReLU()), data, tmp_path / "run.h5", **options)
    with run, pytest.raises(InputError, match="has spatial kernels"):
        fastconv.insight.kernels(run)
