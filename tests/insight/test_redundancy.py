"""Duplicated, dead, saturated and near-constant filters, planted and found."""

import numpy as np
import pytest
from helpers.planted import convolution, noise
from torch import nn

import fastconv
from fastconv.errors import InputError
from fastconv.insight.correlation import cosine, linear_cka, pearson


def redundancy_of(model, data, tmp_path, **options):
    options = {"samples": True, "progress": False} | options
    with fastconv.extract(model, data, tmp_path / "run.h5", **options) as run:
        return fastconv.insight.redundancy(run)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_planted_filters_are_found(rank, tmp_path):
    kernels = np.random.default_rng(0).normal(size=(6, 2, *(3,) * rank))
    kernels[4] = 3 * kernels[1]  # a duplicate
    kernels[2] = 1e-4 * kernels[2]
    bias = np.array([0, 0, 5.0, -1e3, 0, 0])  # 2 is nearly constant, 3 is dead
    table = redundancy_of(
        nn.Sequential(convolution(kernels, bias)), noise(50, 2, *(9,) * rank), tmp_path
    )
    assert list(table.columns) == [
        *("layer", "filter", "twin", "weight_similarity", "response_correlation"),
        *("dead", "saturated", "near_constant"),
    ]
    assert table["twin"][[1, 4]].tolist() == [4, 1]
    for name in ("weight_similarity", "response_correlation"):
        assert table[name][[1, 4]].min() > 0.99999
        assert table[name][[0, 2, 3, 5]].max() < 0.95
    assert table["dead"].tolist() == [False, False, False, True, False, False]
    assert table["near_constant"].tolist() == [False, False, True, True, False, False]
    assert not table["saturated"].any()


@pytest.mark.parametrize(
    ("activation", "saturated"),
    [
        (nn.Sigmoid, [False, True, False]),  # half of filter 2 is 0, as of a ReLU
        (nn.Tanh, [False, True, True]),
        (nn.ReLU, [False] * 3),
    ],
)
def test_saturated_filters_are_at_the_ends_of_a_bounded_activation(activation, saturated, tmp_path):
    bounded = activation is not nn.ReLU
    kernels = np.random.default_rng(0).normal(size=(3, 1, 3, 3))
    kernels[2] *= 500
    kernels[1] *= bounded * 1e-3 + (not bounded)
    bias = np.array([0, 20.0 * bounded, 0])  # 1 is always at the upper end, 2 at both
    table = redundancy_of(
        nn.Sequential(convolution(kernels, bias), activation()),
        noise(20, 1, 9, 9),
        tmp_path,
        stage="act",
    )
    assert table["saturated"].tolist() == saturated


def test_filters_of_different_groups_have_no_weights_in_common(tmp_path):
    kernels = np.tile(np.random.default_rng(0).normal(size=(2, 1, 3, 3)), (2, 1, 1, 1))
    table = redundancy_of(
        nn.Sequential(convolution(kernels, groups=2)), noise(30, 2, 9, 9), tmp_path
    )
    assert table["weight_similarity"].max() < 0.95
    model = nn.Sequential(convolution(kernels, groups=2))
    same = noise(30, 1, 9, 9).repeat(1, 2, 1, 1)
    (tmp_path / "run.h5").unlink()
    table = redundancy_of(model, same, tmp_path)
    assert table["response_correlation"].min() > 0.99999  # though the data make them the same
    assert table["weight_similarity"].tolist() == [0] * 4


def test_what_the_run_lacks_is_named(tmp_path):
    model, data = nn.Sequential(convolution(np.ones((2, 1, 3, 3)))), noise(4, 1, 9, 9)
    with pytest.raises(InputError, match="samples=True"):
        redundancy_of(model, data, tmp_path, samples=False)
    (tmp_path / "run.h5").unlink()
    with pytest.raises(InputError, match="quantiles=True"):
        redundancy_of(model, data, tmp_path, quantiles=False)


def test_correlations_are_those_of_numpy(monkeypatch):
    monkeypatch.setattr("fastconv.insight.correlation._ROWS", 7)  # several blocks
    random = np.random.default_rng(0)
    x, y = (random.normal(3, 2, size=(45, c)).astype(np.float32) for c in (4, 3))
    rows = random.random(45) < 0.8
    wanted = np.corrcoef(x[rows].T.astype(float), y[rows].T.astype(float))[:4, 4:]
    np.testing.assert_allclose(pearson(x, y, rows), wanted, atol=1e-9)
    x[:, 0] = 7
    assert (pearson(x, y, rows)[0] == 0).all()
    flat = x.astype(float)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine(x, x), unit @ unit.T, atol=1e-9)


def test_cka_is_its_definition_on_gram_matrices():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 6)).astype(np.float32)
    y = (x[:, :4] @ random.normal(size=(4, 5)) + random.normal(size=(40, 5))).astype(np.float32)
    rows = np.ones(40, bool)
    rows[3] = False
    centre = np.eye(39) - 1 / 39
    k, l = (centre @ (z[rows].astype(float) @ z[rows].T.astype(float)) @ centre for z in (x, y))  # noqa: E741
    wanted = np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))
    assert linear_cka(x, y, rows) == pytest.approx(wanted, abs=1e-9)
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    turned = (5 * x.astype(float) @ rotation).astype(np.float64)
    assert linear_cka(x, turned, rows) == pytest.approx(1, abs=1e-6)
