"""Networks that have diverged: filters that are never finite are left out, all others stay."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import noise
from torch import nn
from torch.utils.data import TensorDataset

import fastconv
from fastconv.errors import InputError

BROKEN = {2: float("nan"), 3: float("inf")}  # filter: its weights
TABLES = ("responses", "classes", "outcomes", "confusion", "misfires", "kernels", "redundancy")


def network(broken=BROKEN):
    """Eight filters that the output does not depend on, and an answer that is often wrong."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"conv": nn.Conv2d(2, 8, 3), "top": nn.Conv2d(2, 3, 9)})
    with torch.no_grad():
        for number, value in broken.items():
            model["conv"].weight[number] = value
    return model


def forward(model, batch):
    model["conv"](batch)
    return model["top"](batch).flatten(1)


def extracted(model, folder, **options):
    data = TensorDataset(noise(40, 2, 9, 9), torch.arange(40) % 3)
    options = {"forward": forward, "samples": True, "outcomes": True, "progress": False} | options
    conditions = {"flip": fastconv.perturb.flip()}
    path = folder / f"{len(list(folder.iterdir()))}.h5"
    return fastconv.extract(model, data, path, conditions=conditions, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with extracted(network(), tmp_path_factory.mktemp("broken")) as found:
        yield found


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    with extracted(network({}), tmp_path_factory.mktemp("sound")) as found:
        yield found


@pytest.mark.parametrize("name", TABLES)
def test_tables_leave_them_out_and_say_of_the_others_what_they_would_without(name, run, sound):
    table, wanted = (getattr(fastconv.insight, name)(found) for found in (run, sound))
    assert not table.isna().to_numpy().any()
    own = table[table["layer"] == "conv"]
    assert set(own["filter"]) == set(range(8)) - set(BROKEN)
    if name == "redundancy":
        assert not set(own["twin"]) & set(BROKEN)
        return
    wanted = wanted[~((wanted["layer"] == "conv") & wanted["filter"].isin(list(BROKEN)))]
    columns = [c for c in table if c != "q"]  # q is over all rows
    pd.testing.assert_frame_equal(table[columns], wanted[columns].reset_index(drop=True), rtol=1e-9)


def test_design_weighs_the_filters_that_can_be_weighed(run):
    table = fastconv.insight.design(run)
    assert not table.isna().to_numpy().any()
    assert table["filters"].tolist() == [8, 3] and table["unused_rim"].tolist() == [0, 0]
    energy = np.square(np.delete(run["conv"].weight, [*BROKEN], 0), dtype=np.float64).sum((0, 1))
    np.testing.assert_allclose(table["rim_energy"][0], 1 - energy[1, 1] / energy.sum())


def test_what_redundancy_says_of_each_is_its_own(tmp_path):
    """Behind those that are left out: one that is dead, and one that is saturated."""
    model = nn.Sequential(network()["conv"], nn.ReLU6())
    with torch.no_grad():
        model[0].bias[5], model[0].bias[6] = -99, 99
    data = noise(40, 2, 9, 9)
    options = {"samples": True, "stage": "act", "progress": False}
    with fastconv.extract(model, data, tmp_path / "run.h5", **options) as run:
        table = fastconv.insight.redundancy(run).set_index("filter")
    assert table.index.tolist() == [0, 1, 4, 5, 6, 7]
    assert table.index[table["dead"]].tolist() == [5]
    assert table.index[table["saturated"]].tolist() == [6]
    assert table.index[table["near_constant"]].tolist() == [5, 6]


@pytest.mark.parametrize("samples", [True, False])
def test_they_have_no_row_in_a_comparison(samples, run, sound, tmp_path):
    if not samples:
        run = extracted(network(), tmp_path, samples=False, outcomes=False)
    table = fastconv.compare(run, sound)
    assert not table.isna().to_numpy().any()
    own = table[table["layer"] == "conv"]
    assert own["filter"].tolist() == own["match"].tolist() == [0, 1, 4, 5, 6, 7]
    assert (own["basis"] == ("responses" if samples else "weights")).all()
    if samples:
        assert 0.5 < table.attrs["cka"]["conv"] < 1  # six filters against eight
        assert fastconv.compare(run, run).attrs["cka"]["conv"] == pytest.approx(1)


def test_an_embedding_is_of_the_others(run, sound):
    found = fastconv.insight.embed(run, "conv")
    assert np.isfinite(found.points).all()


def test_the_report_is_made(run, tmp_path):
    page = fastconv.report(run, tmp_path / "report.html")
    assert page.stat().st_size


def test_a_layer_of_nan_alone_has_no_rows(tmp_path):
    (tmp_path / "runs").mkdir()
    with extracted(network(dict.fromkeys(range(8), torch.nan)), tmp_path / "runs") as run:
        for name in ("kernels", "redundancy"):
            assert set(getattr(fastconv.insight, name)(run)["layer"]) == {"top"}
        assert fastconv.insight.design(run)["redundant"].tolist() == [0, 0]
        assert set(fastconv.compare(run, run)["layer"]) == {"top"}
        with pytest.raises(InputError, match="2 filters of finite values at least; conv has 40"):
            fastconv.insight.embed(run, "conv")
        assert fastconv.report(run, tmp_path / "report.html").stat().st_size
        assert fastconv.export.figures(run, tmp_path / "figures")


def test_entanglement_and_overlap_leave_them_out(run, sound):
    table = fastconv.insight.entanglement({"broken": run, "sound": sound})
    assert not table.isna().to_numpy().any()
    assert not set(table.loc[table["layer"] == "conv", "filter"]) & set(BROKEN)
    with pytest.raises(InputError, match=r"a mapping such as .*, got a list"):
        fastconv.insight.entanglement([run, sound])
    masks = np.random.default_rng(0).random((40, 9, 9)) > 0.5
    table = fastconv.overlap(network(), noise(40, 2, 9, 9), masks, "conv", forward=forward)
    assert set(table["filter"]) == set(range(8)) - set(BROKEN)
    assert not table.isna().to_numpy().any()


def test_ablation_takes_scores_of_nan_for_wrong_answers():
    data = TensorDataset(noise(40, 2, 9, 9), torch.arange(40) % 3)

    def sometimes(model, batch):
        scores = forward(model, batch)
        return torch.where(batch[:, :1, 0, 0] > 0, torch.nan, scores)

    table = fastconv.ablate(network({}), data, {"top": [0]}, forward=sometimes)
    assert not table.isna().to_numpy().any()
    answered = (data.tensors[0][:, 0, 0, 0] <= 0).numpy()
    with torch.no_grad():
        scores = forward(network({}), data.tensors[0]).softmax(1)
    sure, said = (values.numpy() for values in scores.max(1))
    label = data.tensors[1].numpy()
    assert table["accuracy"][0] == ((said == label) & answered).mean()
    for row in table.itertuples():
        own = label == row[3]
        assert row.confidence == pytest.approx((sure * answered)[own].mean())


def test_answers_of_nan_are_no_answers(tmp_path):
    model = network({})
    with torch.no_grad():
        model["top"].weight[0] = float("nan")
    with (
        extracted(model, tmp_path) as run,
        pytest.raises(InputError, match="scores of the model are NaN for all samples: check"),
    ):
        fastconv.insight.outcomes(run)


def test_some_answers_of_nan_are_left_out(tmp_path):
    def sometimes(model, batch):
        scores = forward(model, batch)
        return torch.where(batch[:, :1, 0, 0] > 1, torch.nan, scores)

    with extracted(network({}), tmp_path, forward=sometimes) as run:
        assert 0 < np.isnan(run.outcomes["confidence"]).sum() < 20
        table = fastconv.insight.outcomes(run)
    assert len(table) and not table.isna().to_numpy().any()
