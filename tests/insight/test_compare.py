"""Filters of two runs matched: permuted, changed and pruned ones."""

import copy

import numpy as np
import pytest
import torch
from helpers.planted import convolution, noise
from torch import nn

import fastconv
from fastconv.errors import InputError


def extracted(model, data, path, **options):
    options = {"samples": True, "progress": False} | options
    return fastconv.extract(model, data, path, **options)


def network(rank=2, filters=6, seed=0):
    random = np.random.default_rng(seed)
    return nn.Sequential(
        convolution(random.normal(size=(filters, 2, *(3,) * rank)), random.normal(size=filters)),
        nn.ReLU(),
        convolution(random.normal(size=(4, filters, *(3,) * rank))),
    )


def permuted(model, order):
    """The same function, with the filters of the first layer in another order."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(other[0], name).copy_(getattr(model[0], name)[order])
        other[2].weight.copy_(model[2].weight[:, order])
    return other


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_permuted_filters_are_matched_by_their_responses(rank, tmp_path):
    model, order = network(rank), [3, 0, 5, 1, 2, 4]
    data = noise(40, 2, *(9,) * rank)
    a = extracted(model, data, tmp_path / "a.h5")
    b = extracted(permuted(model, order), data, tmp_path / "b.h5")
    with a, b:
        table = fastconv.compare(a, b)
    first = table[table["layer"] == "0"]
    assert [order[m] for m in first["match"]] == first["filter"].tolist() == list(range(6))
    assert table["similarity"].min() > 0.99999
    assert (table["basis"] == "responses").all()
    assert set(table.attrs["cka"]) == {"0", "2"}
    np.testing.assert_allclose(table["cka"], 1, atol=1e-6)
    for name in ("mean", "std", "min", "max", "positive"):
        assert np.abs(table[f"{name}_change"]).max() < 1e-4


def test_the_change_of_every_statistic_is_the_difference_of_the_two_files(tmp_path):
    data = noise(30, 2, 9, 9)
    a = extracted(network(seed=0), data, tmp_path / "a.h5")
    b = extracted(network(seed=1), data, tmp_path / "b.h5")
    with a, b:
        table = fastconv.compare(a, b)
        for row in table.to_dict("records"):
            before, after = a[row["layer"]].stats, b[row["layer"]].stats
            for name in ("mean", "std", "min", "max", "positive"):
                wanted = float(after[name][row["match"]]) - float(before[name][row["filter"]])
                assert row[f"{name}_change"] == wanted
    assert table["cka"].between(0, 0.999).all()
    assert table.groupby("layer")["match"].nunique().tolist() == [6, 4]


def test_other_data_are_compared_by_weights(tmp_path):
    model = network()
    other = copy.deepcopy(model)
    with torch.no_grad():  # fine-tuned: a little of everything, and two filters swapped
        for parameter in other.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        other[0].weight.copy_(other[0].weight[[1, 0, 2, 3, 4, 5]])
    a = extracted(model, noise(20, 2, 9, 9, seed=0), tmp_path / "a.h5")
    b = extracted(other, noise(20, 2, 9, 9, seed=1), tmp_path / "b.h5")
    with a, b:
        table = fastconv.compare(a, b)
    assert (table["basis"] == "weights").all()
    assert table.loc[table["layer"] == "0", "match"].tolist() == [1, 0, 2, 3, 4, 5]
    assert "cka" not in table and table.attrs["cka"] == {}


def test_a_pruned_layer_leaves_filters_without_a_match(tmp_path):
    model, kept, data = network(), [0, 2, 5], noise(30, 2, 9, 9)
    pruned = nn.Sequential(
        convolution(model[0].weight[kept].detach().numpy(), model[0].bias[kept].detach())
    )
    a = extracted(model, data, tmp_path / "a.h5")
    b = extracted(pruned, data, tmp_path / "b.h5")
    with a, b:
        table = fastconv.compare(a, b)
    assert table["filter"].tolist() == kept and table["match"].tolist() == [0, 1, 2]
    assert table.attrs["only_in_a"] == ["2"] and table.attrs["only_in_b"] == []


def test_what_cannot_be_compared_says_why(tmp_path):
    data = noise(6, 2, 9, 9)
    a = extracted(network(), data, tmp_path / "a.h5", samples=False)
    named = nn.Sequential()
    named.add_module("conv", convolution(np.ones((2, 2, 3, 3))))
    b = extracted(named, data, tmp_path / "b.h5")
    larger = extracted(nn.Sequential(nn.Conv2d(2, 3, 5)), data, tmp_path / "c.h5", samples=False)
    with a, b, larger:
        with pytest.raises(InputError, match="no layer in common"):
            fastconv.compare(a, b)
        with pytest.raises(InputError, match="cannot be matched by weights; extract both runs"):
            fastconv.compare(a, larger)


def test_layers_that_weights_cannot_match_are_left_out_and_named(tmp_path):
    """Of networks whose first layer has another kernel; the others are compared."""
    data, model = noise(6, 2, 9, 9), network()
    other = nn.Sequential(nn.Conv2d(2, 6, 5), nn.ReLU(), copy.deepcopy(model[2]))
    a = extracted(model, data, tmp_path / "a.h5", samples=False)
    b = extracted(other, data, tmp_path / "b.h5", samples=False)
    with a, b, pytest.warns(UserWarning, match=r"left out: 0 \(its kernels are \[2, 3, 3\] and"):
        table = fastconv.compare(a, b)
    assert set(table["layer"]) == {"2"} and (table["similarity"] > 0.999).all()
    assert table.attrs["left_out"] == {"0": "its kernels are [2, 3, 3] and [2, 5, 5]"}
