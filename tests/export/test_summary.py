"""Numbers that exports show, against what numpy says of the same values."""

import numpy as np
import pytest

from fastconv.export.summary import (
    densities,
    layer_quantiles,
    layer_statistic,
    most_selective,
    principal,
)


def test_densities_keep_every_value(odd_run):
    for name in ("two", "dead", "zero", "none"):
        layer = odd_run[name]
        edges, counts = densities(layer, np.array([1, 0]))
        assert 0 in edges and counts.sum(1) == pytest.approx(layer.stats["count"][[1, 0]])
        below = counts[:, edges[1:] <= 0].sum(1) / counts.sum(1)
        assert below == pytest.approx(1 - layer.stats["positive"][[1, 0]], abs=1e-6)


def test_quantiles_of_a_layer_are_those_of_all_its_values(odd_run):
    layer = odd_run["two"]
    values = np.concatenate([layer.map(s).ravel() for s in layer.map_samples])  # every other sample
    found = layer_quantiles(layer, [0.1, 0.9])
    assert found == pytest.approx(np.quantile(values, [0.1, 0.9]), rel=0.15)
    assert np.isnan(layer_quantiles(odd_run["nan"], [0.5])).all()


def test_statistics_of_a_layer(odd_run):
    stats = odd_run["two"].stats
    assert layer_statistic(odd_run["two"], "max") == stats["max"].max()
    assert layer_statistic(odd_run["two"], "min") == stats["min"].min()
    assert layer_statistic(odd_run["two"], "mean") == pytest.approx(stats["mean"].mean())
    assert layer_statistic(odd_run["dead"], "dead") == 1
    assert layer_statistic(odd_run["nan"], "nonfinite") == 1
    assert np.isnan(layer_statistic(odd_run["nan"], "mean"))


def test_the_most_selective_filter_stands_out_furthest(odd_run):
    layer = odd_run["two"]
    height = (layer.topk.values[:, 0] - layer.stats["mean"]) / layer.stats["std"]
    assert most_selective(layer)[0] == height.argmax()
    assert sorted(most_selective(odd_run["nan"])) == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(30, 100), (200, 100)])
def test_principal_components_keep_the_distances_that_matter(shape):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(shape[0], 5)) @ rng.normal(size=(5, shape[1])) + 7
    small = principal(vectors, 8)
    assert small.shape == (shape[0], 8)
    first, far = (np.linalg.norm(v[:-1] - v[1:], axis=1) for v in (vectors, small))
    assert far == pytest.approx(first)
    assert principal(vectors[:, :3], 8) is not None and principal(vectors[:, :3], 8).shape[1] == 3
