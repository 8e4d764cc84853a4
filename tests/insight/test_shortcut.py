"""A planted shortcut end to end: found by every table, proved by ablation."""

import numpy as np
import pytest
from torch.utils.data import TensorDataset

import fastconv


@pytest.fixture(scope="module")
def masks(shortcut):
    found = np.zeros((len(shortcut.clean), 12, 12), bool)
    found[shortcut.half, :3, :3] = True
    return {"mark": found}


@pytest.fixture(scope="module")
def run(shortcut, tmp_path_factory):
    data = TensorDataset(shortcut.odd, shortcut.labels)
    out = tmp_path_factory.mktemp("shortcut") / "run.h5"
    asked = {"stage": "act", "samples": True, "outcomes": True, "progress": False}
    return fastconv.extract(shortcut.model, data, out, **asked)


@pytest.fixture(scope="module")
def guilty(shortcut, masks):
    """The three filters of conv2 whose maps lie in the mark most."""
    data = TensorDataset(shortcut.odd, shortcut.labels)
    table = fastconv.overlap(shortcut.model, data, masks, ["conv2"], stage="act")
    found = table.head(3)
    assert found["iou"].min() > 0.1 and found["inside"].min() > 0.6
    assert table["iou"].median() < 0.01
    return found["filter"].tolist()


def test_the_filters_of_the_mark_head_misfires_and_their_hits_show_it(shortcut, run, guilty):
    table = fastconv.insight.misfires(run)
    best = table[table["layer"] == "conv2"].head(3)
    assert set(best["filter"]) <= set(guilty) and set(best["class"]) == {shortcut.cheated}
    assert best["q"].max() < 1e-3 and best["lift"].min() > 2 and best["rate"].min() > 0.1
    assert table["class"].iloc[0] == shortcut.cheated
    hits = run["conv2"].topk
    for filter in best["filter"]:
        assert shortcut.half[hits.sample[filter]].all()
        assert (hits.box[filter, :, :, 0] < 3).all()  # they begin in the corner


def test_they_head_biases_of_the_mark_and_not_of_another_group(shortcut, run, guilty):
    table = fastconv.insight.biases(run, shortcut.half)
    marked = table[table["group"] & (table["layer"] == "conv2")]
    assert set(marked.sort_values("auroc").tail(2)["filter"]) <= set(guilty)
    assert marked[marked["filter"].isin(guilty)]["q"].max() < 1e-6
    other = np.random.default_rng(0).integers(0, 2, len(shortcut.half))
    assert (fastconv.insight.biases(run, other)["q"] < 0.05).mean() < 0.05


def test_a_group_that_follows_the_class_is_no_bias(shortcut, run):
    """Filters of classes separate such a group, but not within a class."""
    labels = shortcut.labels.numpy()
    swapped = np.random.default_rng(1).random(len(labels)) < 0.15
    follows = (labels < 5) ^ swapped
    unconditioned = fastconv.insight.classes(run, labels=follows)
    assert (unconditioned["q"] < 0.05).mean() > 0.3
    assert (fastconv.insight.biases(run, follows)["q"] < 0.05).mean() < 0.05


def test_without_them_the_shortcut_is_gone_and_nothing_else(shortcut, guilty):
    filters = {"relu2": guilty}
    odd = TensorDataset(shortcut.odd, shortcut.labels)
    with_mark = fastconv.ablate(shortcut.model, odd, filters, together=True)
    row = with_mark[with_mark["class"] == shortcut.cheated].iloc[0]
    assert row["precision"] < 0.4 and row["precision_low"] > 0.2  # marked images were called 7
    assert row["accuracy_low"] > 0.1
    clean = TensorDataset(shortcut.clean, shortcut.labels)
    without_mark = fastconv.ablate(shortcut.model, clean, filters, together=True)
    assert without_mark["accuracy_change"].abs().max() < 0.03


def test_other_filters_do_not_remove_it(shortcut, masks):
    data = TensorDataset(shortcut.odd, shortcut.labels)
    table = fastconv.overlap(shortcut.model, data, masks, ["conv2"], stage="act")
    innocent = table[table["inside"] < 0.05]["filter"].tolist()[:3]
    row = fastconv.ablate(shortcut.model, data, {"relu2": innocent}, together=True).iloc[
        shortcut.cheated
    ]
    assert row["precision_change"] < 0.1
