"""Planted responses to change: an invariant and an oriented filter, texture and shape."""

import numpy as np
import torch
from helpers.planted import centre_surround, convolution, gabor
from sklearn.datasets import load_sample_image
from torch import nn
from torch.utils.data import TensorDataset

import fastconv
from fastconv import perturb
from fastconv.demo.training import train


def test_a_filter_that_turning_leaves_alone_and_an_oriented_one(tmp_path):
    photo = torch.tensor(load_sample_image("china.jpg")).float().mean(2) / 255
    crops = photo.unfold(0, 48, 24).unfold(1, 48, 24).flatten(0, 1)[:, None]
    model = convolution(np.stack([centre_surround(9, 2), gabor(9, 0, 0)])[:, None])
    run = fastconv.extract(
        nn.Sequential(model, nn.ReLU()),
        crops,
        tmp_path / "run.h5",
        stage="act",
        samples=True,
        conditions={f"rot{a}": perturb.rotate(a) for a in (10, 45, 90)},
        progress=False,
    )
    table = fastconv.insight.responses(run).set_index(["condition", "filter"])
    for condition in run.conditions[1:]:
        round_, oriented = table.loc[condition, 0], table.loc[condition, 1]
        for score in ("invariance", "rank_correlation", "topk_overlap"):
            assert round_[score] > oriented[score]
        assert round_["invariance"] > 0.9
    oriented = table.xs(1, level="filter")["invariance"]
    assert oriented["rot10"] > oriented["rot45"]


def pictures(count, seed):
    """Squares and rings filled with stripes along x or y, [N, 1, 24, 24]; shape, texture [N]."""
    rng = np.random.default_rng(seed)
    shape, texture = rng.integers(0, 2, (2, count))
    at = np.arange(24)
    found = np.zeros((count, 1, 24, 24), np.float32)
    for i in range(count):
        y, x = at[:, None] - rng.integers(10, 14), at[None] - rng.integers(10, 14)
        radius = np.maximum(abs(y), abs(x))
        figure = radius < 9 if shape[i] else (radius < 9) & ((abs(y) > 4) | (abs(x) > 4))
        stripes = (at + rng.integers(4)) // 2 % 2
        found[i, 0] = figure * (0.75 + 0.25 * (stripes[:, None] if texture[i] else stripes[None]))
    return torch.from_numpy(found), torch.from_numpy(shape), torch.from_numpy(texture)


def network():
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)),
    )


def test_a_net_of_textures_and_a_net_of_shapes(tmp_path):
    images, shape, texture = pictures(600, 0)
    unseen, unseen_shape, unseen_texture = pictures(120, 1)
    kept = {}
    for name, seen, labels in (
        ("shape", shape, unseen_shape),
        ("texture", texture, unseen_texture),
    ):
        torch.manual_seed(0)
        model = network()
        train(model, images, seen, epochs=6)
        run = fastconv.extract(
            model,
            TensorDataset(unseen, labels),
            tmp_path / f"{name}.h5",
            layers=["8"],
            stage="act",
            samples=True,
            outcomes=True,
            conditions={"shuffle": perturb.shuffle_patches(4), "outline": perturb.silhouette()},
            progress=False,
        )
        assert run.outcomes["correct"].mean() > 0.95
        table = fastconv.insight.responses(run)
        kept[name] = table.groupby("condition")["invariance"].median()
    assert kept["texture"]["shuffle"] > kept["texture"]["outline"] + 0.1
    assert kept["shape"]["outline"] > kept["shape"]["shuffle"] + 0.1
