"""Batch moments and Monte-Carlo dropout through `extract`, compared by `entanglement`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastconv
from fastconv.insight import DropoutPass, batch_moments, entanglement


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)]
    model = nn.Sequential(*first, nn.Conv2d(8, 6, 3), nn.ReLU())
    for _ in range(20):
        model(torch.rand(24, 3, 12, 12))
    return model.eval()


@pytest.fixture(scope="module")
def runs(model, tmp_path_factory):
    images = torch.rand(24, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    images[12:] *= 0.3  # another batch, another mean
    folder = tmp_path_factory.mktemp("runs")

    def extract(name, **asked):
        return fastconv.extract(
            model,
            images,
            folder / f"{name}.h5",
            samples=True,
            batch_size=12,
            progress=False,
            **asked,
        )

    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = {stage: extract(stage, stage=stage) for stage in ("norm", "conv", "act")}
    found["train"] = extract("train", stage="norm", forward=batch_moments)
    found["dropout"] = [extract(f"pass{i}", stage="norm", forward=DropoutPass(i)) for i in range(4)]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    convolved = model[0](images[:12])
    normed = F.batch_norm(convolved, None, None, model[1].weight, model[1].bias, training=True)
    highest = normed.amax((2, 3)).detach().numpy()
    np.testing.assert_allclose(found["train"]["0"].samples.max[:12], highest, atol=1e-5)
    return found


def test_what_changes_a_ranking(runs):
    table = entanglement(runs).set_index(["layer", "stage", "filter"]).sort_index()
    assert (table.loc["0", "conv"]["topk_overlap"] >= 0).all()
    positive = runs["norm"]["0"].stats["mean"] > 0
    assert table.loc["0", "train"]["rank_correlation"].max() < 0.95  # a batch has its own mean
    first = table.loc["0", "dropout"]  # before the dropout
    assert (first["pass_variance"] == 0).all() and (first["rank_correlation"] == 1).all()
    second = table.loc["4", "dropout"]
    assert (second["pass_variance"] > 0.01).all() and (second["rank_correlation"] < 1).all()
    assert positive.any() and (table.loc["0", "act"]["rank_correlation"] > 0.9).all()


def test_a_pass_is_the_same_again_and_verified(model, runs):
    images = torch.rand(24, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    images[12:] *= 0.3
    run = runs["dropout"][1]
    assert fastconv.verify(run.path, model, images, forward=DropoutPass(1))
    assert not fastconv.verify(run.path, model, images, forward=DropoutPass(2))
