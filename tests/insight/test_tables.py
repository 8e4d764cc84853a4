"""The tables over runs in memory: columns, planted filters, missing values, bad input."""

import numpy as np
import pandas as pd
import pytest
from helpers.summaries import Run, outcomes
from scipy import stats
from sklearn.metrics import roc_auc_score

from fastconv import insight
from fastconv.errors import InputError

N = 120
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % 4


def noise(filters=6, seed=0):
    return np.random.default_rng(seed).normal(size=(N, filters)).astype(np.float32)


def head(frame, layer, filter):
    return frame[(frame["layer"] == layer) & (frame["filter"] == filter)]


def test_classes_finds_the_filter_of_a_class():
    values = noise()
    values[:, 2] += 3 * (LABELS == 1)
    frame = insight.classes(Run({"a": noise(seed=1), "b.c": values}, LABELS))
    assert " ".join(frame) == ("layer filter class mean effect auroc selectivity q")
    assert len(frame) == 2 * 6 * 4
    assert list(frame["layer"].unique()) == ["a", "b.c"]
    assert frame.isna().sum().sum() == 0
    best = frame.loc[frame["q"].idxmin()]
    assert (best["layer"], best["filter"], best["class"]) == ("b.c", 2, 1)
    assert best["auroc"] == pytest.approx(roc_auc_score(LABELS == 1, values[:, 2]), abs=1e-9)
    assert best["mean"] == pytest.approx(values[LABELS == 1, 2].mean(), abs=1e-6)
    assert best["selectivity"] > 0.5 and best["effect"] > 2


def test_selectivity_is_that_of_rectified_responses():
    values = np.zeros((N, 2), np.float32)
    values[LABELS == 0, 0] = 5  # fires on one class alone
    values[:, 1] = np.where(LABELS == 0, -5, -6)  # never fires
    frame = insight.classes(Run({"a": values}, LABELS))
    assert list(head(frame, "a", 0)["selectivity"]) == [1, -1, -1, -1]
    assert (head(frame, "a", 1)["selectivity"] == 0).all()
    assert np.isposinf(head(frame, "a", 0)["effect"].iloc[0])


def test_class_names_intervals_and_missing_labels():
    names = ["ant", "bee", "cat", "dog"]
    frame = insight.classes(Run({"a": noise()}, LABELS, classes=names), intervals=True)
    assert list(frame["class"][:4]) == names
    assert (frame["low"] < frame["effect"]).all() and (frame["effect"] < frame["high"]).all()
    own = np.where(LABELS == 3, None, np.array(["x", "y", "z", ""], object)[LABELS])
    frame = insight.classes(Run({"a": noise()}), labels=own)
    assert sorted(frame["class"].unique()) == ["x", "y", "z"]


def test_skipped_samples_and_missing_values_are_left_out():
    values = noise()
    whole = insight.classes(Run({"a": values[10:]}, LABELS[10:]))
    broken = values.copy()
    broken[:10] = np.nan
    labels = LABELS.copy()
    labels[:10] = -1
    skipped = insight.classes(Run({"a": broken}, labels, skipped=range(10)))
    pd.testing.assert_frame_equal(whole, skipped)
    broken = values.copy()
    broken[:10, 3] = np.nan  # of one filter alone
    broken[:, 4] = np.nan  # no finite value
    broken[:, 5] = 7  # the same for all samples
    frame = insight.classes(Run({"a": broken}, LABELS))
    assert sorted(frame["filter"].unique()) == [0, 1, 2, 3]
    columns = ["mean", "effect", "auroc", "selectivity"]
    found, expected = (head(f, "a", 3)[columns].to_numpy() for f in (frame, whole))
    assert np.array_equal(found, expected)
    assert not frame.isna().any(axis=None)


def wrong_run(values, seed=0, wrong=15):
    rng = np.random.default_rng(seed)
    prediction = LABELS.copy()
    chosen = rng.choice(N, wrong, replace=False)
    prediction[chosen] = (LABELS[chosen] + 1) % 4
    return Run({"a": values}, LABELS, outcomes(LABELS, prediction)), chosen


def test_outcomes_finds_the_filter_of_errors():
    values = noise()
    run, chosen = wrong_run(values)
    values[chosen, 1] += 4
    run, chosen = wrong_run(values)
    frame = insight.outcomes(run)
    assert " ".join(frame) == (
        "layer filter auroc_error r_confidence r_correct precision recall threshold q"
    )

    best = frame.loc[frame["q"].idxmin()]
    error = np.isin(np.arange(N), chosen)
    assert best["filter"] == 1 and best["q"] < 1e-6 and best["precision"] > 0.8
    assert best["auroc_error"] == pytest.approx(roc_auc_score(error, values[:, 1]), abs=1e-9)
    r = stats.pearsonr(values[:, 1], run.outcomes["confidence"].astype(float)).statistic
    assert best["r_confidence"] == pytest.approx(r, abs=1e-9)
    assert best["r_correct"] == pytest.approx(stats.pearsonr(values[:, 1], ~error).statistic)
    called = values[:, 1] >= best["threshold"]
    assert best["precision"] == (error & called).sum() / called.sum()
    assert best["recall"] == (error & called).sum() / error.sum()


def test_confusion_of_a_class():
    run, _ = wrong_run(noise())
    frame = insight.confusion(run)
    assert " ".join(frame) == ("layer filter class outcome auroc q")
    row = frame[(frame["filter"] == 2) & (frame["class"] == 1) & (frame["outcome"] == "FP")]
    said = run.outcomes["prediction"]
    false = (said == 1) & (LABELS != 1)
    expected = roc_auc_score(false, run["a"].samples.max[:, 2])
    assert row["auroc"].iloc[0] == pytest.approx(expected, abs=1e-9)


def test_misfires_ranks_the_shortcut_first_and_not_the_filter_of_the_true_class():
    values = noise()
    _, chosen = wrong_run(values)
    values[chosen, 4] += 5  # fires on mistakes
    values[:, 3] += 5 * (LABELS[chosen[0]] == LABELS)  # serves a class
    run, _ = wrong_run(values)
    frame = insight.misfires(run)
    assert " ".join(frame) == ("layer filter class rate lift q")
    assert (frame["filter"][:3] == 4).all()
    assert frame["q"][0] < 0.05 and frame["lift"][0] > 2 and frame["rate"][0] > 0.5
    assert frame[frame["filter"] == 3]["q"].min() > 0.05
    assert not frame.isna().any(axis=None)


def test_biases_leaves_a_group_that_follows_the_class_alone():
    rng = np.random.default_rng(5)
    values = noise()
    values[:, 0] += 3 * (LABELS >= 2)  # the class
    follows = np.where(rng.random(N) < 0.9, LABELS >= 2, LABELS < 2).astype(int)
    frame = insight.biases(Run({"a": values}, LABELS), follows)
    assert " ".join(frame) == ("layer filter group effect auroc q")
    assert head(frame, "a", 0)["q"].min() > 0.05
    site = np.where(rng.random(N) < 0.5, "north", "south")
    values[:, 1] += 2 * (site == "south")
    run = Run({"a": values}, LABELS, columns={"site": site})
    frame = insight.biases(run, "site", intervals=True)
    best = frame.loc[frame["effect"].idxmax()]
    assert (best["filter"], best["group"]) == (1, "south") and best["q"] < 1e-6
    assert best["auroc"] > 0.8 and 1 < best["low"] < best["effect"] < best["high"]
    assert (frame[frame["filter"] != 1]["q"] > 0.05).all()


def test_responses_of_an_invariant_and_a_sensitive_filter():
    values = noise()
    turned = values + 0.01 * noise(seed=1)
    turned[:, 1] = noise(seed=2)[:, 1] + 1
    values[:, 5] = turned[:, 5] = 3  # the same for all samples: left out
    turned[:, 4] = 0  # dies
    frame = insight.responses(Run({"a": {"": values, "same": values, "rot": turned}}))
    assert " ".join(frame) == (
        "layer filter condition mean_change low high max_change rank_correlation invariance "
        "topk_overlap"
    )
    assert list(frame["condition"][:2]) == ["same", "rot"] and len(frame) == 10
    same = frame[frame["condition"] == "same"]
    assert (same[["rank_correlation", "invariance", "topk_overlap"]] == 1).all(axis=None)
    assert (same[["mean_change", "low", "high", "max_change"]] == 0).all(axis=None)
    rot = frame[frame["condition"] == "rot"].set_index("filter")
    assert rot["invariance"][0] > 0.99 and rot["rank_correlation"][0] > 0.99
    assert rot["invariance"][1] < 0.3 and rot["topk_overlap"][1] < 0.5
    assert rot["low"][1] > 0 and rot["max_change"][1] == pytest.approx(2 * rot["mean_change"][1])
    assert rot["rank_correlation"][4] == 0 and rot["invariance"][4] == 0
    assert not frame.isna().any(axis=None)


def test_entanglement_of_stages_and_passes():
    values = noise()
    act = np.maximum(values, 0)
    act[:, 2] = noise(seed=3)[:, 2]
    passes = [Run({"a": values + noise(seed=s)}) for s in range(20)]
    runs = {"conv": Run({"a": values}), "act": Run({"a": act}), "drop": passes}
    frame = insight.entanglement(runs)
    assert " ".join(frame) == ("layer filter stage rank_correlation topk_overlap pass_variance")

    rows = frame[frame["stage"] == "act"].set_index("filter")
    assert rows["topk_overlap"][0] == 1 and rows["topk_overlap"][2] < 0.5
    assert 0.8 < rows["rank_correlation"][0] < 1 and (rows["pass_variance"] == 0).all()
    drop = frame[frame["stage"] == "drop"]
    stacked = np.stack([r["a"].samples.max for r in passes]).astype(float)
    within = stacked.var(0).mean(0)
    expected = within / (within + stacked.mean(0).var(0))
    np.testing.assert_allclose(drop["pass_variance"], expected, rtol=1e-9)


@pytest.mark.parametrize("table", ["classes", "outcomes", "misfires", "biases"])
@pytest.mark.parametrize("silent", [0.5, 0.97])
def test_nothing_is_found_in_noise(table, silent):
    """Under the null hypothesis at most 5 % of the rows are called at q < 0.05.

    Also of filters that are silent on almost all samples.
    """
    called = rows = 0
    for draw in range(200):
        rng = np.random.default_rng(draw)
        labels = rng.integers(0, 3, 90)
        said = np.where(rng.random(90) < 0.15, rng.integers(0, 3, 90), labels)
        threshold = stats.norm.ppf(silent)
        values = np.maximum(rng.normal(size=(90, 12)), threshold).astype(np.float32)
        run = Run({"a": values}, labels, outcomes(labels, said, rng.random(90)))
        given = (rng.integers(0, 2, 90),) if table == "biases" else ()
        frame = getattr(insight, table)(run, *given)
        called, rows = called + (frame["q"] < 0.05).sum(), rows + len(frame)
    assert rows > 200 * 12 * 0.8
    assert called <= 0.05 * rows


BAD = {
    "no labels": (lambda: insight.classes(Run({"a": noise()})), "no labels; give labels="),
    "one class": (lambda: insight.classes(Run({"a": noise()}, LABELS * 0)), "one class only"),
    "labels of another length": (
        lambda: insight.classes(Run({"a": noise()}), [0, 1]),
        r"labels must be one a sample, 120, got shape \[2\]",
    ),
    "labels out of range": (
        lambda: insight.classes(Run({"a": noise()}, LABELS, classes=["x", "y"])),
        "labels must be 0 ... 1, the classes of the run, got 3",
    ),
    "no outcomes": (lambda: insight.outcomes(Run({"a": noise()}, LABELS)), "outcomes=True"),
    "unlabelled outcomes": (
        lambda: insight.misfires(Run({"a": noise()}, None, outcomes(LABELS * 0 - 1, LABELS))),
        "no labels",
    ),
    "one wrong": (
        lambda: insight.outcomes(wrong_run(noise(), wrong=1)[0]),
        r"fewer than two wrong outcomes \(1\)",
    ),
    "all wrong": (
        lambda: insight.misfires(Run({"a": noise()}, LABELS, outcomes(LABELS, LABELS + 1))),
        "no outcome is correct",
    ),
    "one group": (
        lambda: insight.biases(Run({"a": noise()}, LABELS), np.zeros(N)),
        "a group of one value",
    ),
    "a quantity": (
        lambda: insight.biases(Run({"a": noise()}, LABELS), np.arange(N)),
        "120 values; bin it",
    ),
    "group is the class": (
        lambda: insight.biases(Run({"a": noise()}, LABELS), LABELS >= 2),
        "follows the class",
    ),
    "no column": (
        lambda: insight.biases(Run({"a": noise()}, LABELS, columns={"sex": LABELS}), "site"),
        "no column 'site', it has sex",
    ),
    "no conditions": (lambda: insight.responses(Run({"a": noise()})), "no conditions"),
    "one run": (lambda: insight.entanglement({"conv": Run({"a": noise()})}), "two runs or more"),
    "other samples": (
        lambda: insight.entanglement({"a": Run({"a": noise()}), "b": Run({"a": noise()[:9]})}),
        "other samples: 9 and 120",
    ),
    "a summary of no name": (
        lambda: insight.classes(Run({"a": noise()}, LABELS), of="median"),
        "max or mean",
    ),
    "a quantile of 2": (
        lambda: insight.misfires(wrong_run(noise())[0], quantile=2),
        "between 0 and 1, got 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_says_what_to_do(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
