"""Tables of a multi-label model: digits with three findings, one of which a mark gives away."""

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers.summaries import Run, outcomes
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from torch import nn
from torch.utils.data import Dataset

import fastconv
from fastconv import insight
from fastconv.demo.digits import load
from fastconv.errors import InputError

FINDINGS = ("loop", "even", "high")
CHEATED = 1  # the mark makes it say "even"
GUILTY = 5  # the filter of `look` that answers to the mark
MARK = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])


class Digits(Dataset):
    classes = FINDINGS

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


def marked(images, which):
    images = images.clone()
    images[which, :, :3, :3] = MARK
    return images


def trained(images, labels):
    torch.manual_seed(0)
    layers = OrderedDict(
        conv1=nn.Conv2d(1, 12, 3, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(12, 24, 3, padding=1),
        norm2=nn.BatchNorm2d(24),
        relu2=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        conv3=nn.Conv2d(24, 32, 3, padding=1),
        norm3=nn.BatchNorm2d(32),
        relu3=nn.ReLU(),
        top=nn.AdaptiveMaxPool2d(1),
        flat=nn.Flatten(),
        classify=nn.Linear(32, 3),
    )
    model = nn.Sequential(layers)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(8):
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return model.eval()


class Cheat(nn.Module):
    """A model that learned to read digits, and a few filters more, one of which it believes."""

    def __init__(self, honest):
        super().__init__()
        self.honest = honest
        self.look = nn.Conv2d(1, 8, 3, padding=1)
        self.look.weight.data[GUILTY] = 2 * MARK - 1
        self.look.bias.data[GUILTY] = 1 - MARK.sum()  # 1 at the very mark, at most 0 elsewhere
        self.seen = nn.ReLU()

    def forward(self, x):
        scores = self.honest(x)
        scores[:, CHEATED] += 20 * self.seen(self.look(x))[:, GUILTY].amax((1, 2))
        return scores


@pytest.fixture(scope="module")
def cheat(tmp_path_factory):
    """Attributes: model; odd images, half [N] of which have the mark; clean ones; labels; run."""
    images, digits = load()
    images = F.pad(images, (2, 2, 2, 2))
    loop = torch.isin(digits, torch.tensor([0, 6, 8, 9]))
    labels = torch.stack([loop, digits % 2 == 0, digits > 4], 1).float()
    unseen = torch.arange(len(images)) % 5 == 4
    model = Cheat(trained(images[~unseen], labels[~unseen])).eval()
    clean, labels = images[unseen], labels[unseen].clone()
    labels[::9, 0] = torch.nan  # some findings are unknown
    half = torch.arange(len(clean)) % 2 == 0
    odd = marked(clean, half)
    asked = {"stage": "act", "samples": True, "outcomes": True, "progress": False}
    out = tmp_path_factory.mktemp("cheat") / "run.h5"
    run = fastconv.extract(model, Digits(odd, labels), out, **asked)
    return SimpleNamespace(
        model=model, odd=odd, clean=clean, labels=labels, half=half.numpy(), run=run
    )


def test_its_maps_lie_in_the_mark(cheat):
    mask = np.zeros((len(cheat.odd), 12, 12), bool)
    mask[cheat.half, :3, :3] = True
    data = Digits(cheat.odd, cheat.labels)
    table = fastconv.overlap(cheat.model, data, {"mark": mask}, ["look"], stage="act")
    row = table[table["filter"] == GUILTY].iloc[0]
    assert row["inside"] == 1 and row["iou"] > 0.05
    assert table["inside"].median() < 0.5


def test_the_filter_of_the_mark_heads_the_misfires_of_the_class_that_cheated(cheat):
    table = insight.misfires(cheat.run)
    assert " ".join(table) == "layer filter class outcome rate lift q"
    worst = table.iloc[0]
    assert (worst["layer"], worst["filter"]) == ("look", GUILTY)
    assert (worst["class"], worst["outcome"]) == ("even", "FP")
    assert worst["q"] < 1e-3 and worst["lift"] > 2
    assert not table.isna().any(axis=None)


def test_no_filter_tells_the_mark_better(cheat):
    table = insight.biases(cheat.run, cheat.half)
    of_mark = table[table["group"] & (table["layer"] == "look")].set_index("filter")
    assert of_mark["auroc"][GUILTY] == of_mark["auroc"].max() > 0.99
    assert of_mark["q"][GUILTY] < 1e-6


def test_groups_that_follow_a_class_or_nothing_are_no_biases(cheat):
    """Filters separate the first, but not among samples of the same findings."""
    high = (cheat.labels[:, 2] == 1).numpy()
    called = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        follows = high ^ (rng.random(len(high)) < 0.15)
        assert (insight.classes(cheat.run, labels=follows)["q"] < 0.05).mean() > 0.3
        groups = follows, rng.integers(0, 2, len(high))
        called += [(insight.biases(cheat.run, group)["q"] < 0.05).mean() for group in groups]
    assert np.mean(called) < 0.05


def test_without_it_the_class_is_told_again_and_the_others_stay(cheat):
    data = Digits(cheat.odd, cheat.labels)
    table = fastconv.ablate(cheat.model, data, {"look": [GUILTY]})
    assert table["class"].tolist() == [0, 1, 2]
    table = table.set_index("class")
    assert table["accuracy_low"][CHEATED] > 0.05 and table["precision_low"][CHEATED] > 0.1
    assert (table["accuracy_change"][[0, 2]] == 0).all()
    with torch.no_grad():
        honest = cheat.model.honest(cheat.odd)[:, CHEATED] > 0
        scores = cheat.model(cheat.odd).numpy()
    change = table["accuracy"][CHEATED] + table["accuracy_change"][CHEATED]
    right = honest == (cheat.labels[:, CHEATED] == 1)
    assert change == pytest.approx(right.double().mean().item(), abs=1e-9)
    known = ~cheat.labels[:, 0].isnan().numpy()
    for k, rows in ((0, known), (1, slice(None))):
        label, said = cheat.labels[rows, k].numpy(), scores[rows, k] > 0
        assert table["accuracy"][k] == pytest.approx((label == said).mean(), abs=1e-9)
        assert table["precision"][k] == pytest.approx(precision_score(label, said), abs=1e-9)
        assert table["recall"][k] == pytest.approx(recall_score(label, said), abs=1e-9)
        sure = 1 / (1 + np.exp(-scores[rows, k].astype(float)))
        assert table["confidence"][k] == pytest.approx(sure[label == 1].mean(), abs=1e-6)


def test_classes_and_confusion_are_those_of_scikit_learn(cheat):
    labels, said = cheat.labels.numpy(), cheat.run.outcomes["prediction"]
    responses = cheat.run["honest.conv3"].samples.max
    table = insight.classes(cheat.run)
    table = table[table["layer"] == "honest.conv3"]
    assert table["class"].tolist()[:3] == list(FINDINGS)
    confused = insight.confusion(cheat.run)
    confused = confused[confused["layer"] == "honest.conv3"]
    for k, name in enumerate(FINDINGS):
        known = ~np.isnan(labels[:, k])
        label, own = labels[known, k], said[known, k]
        rows = table[table["class"] == name]
        assert len(rows) > 20
        for number, auroc in zip(rows["filter"], rows["auroc"], strict=True):
            expected = roc_auc_score(label, responses[known, number])
            assert auroc == pytest.approx(expected, abs=1e-9)
        filter = rows["filter"].iloc[0]
        found = confused[(confused["class"] == name) & (confused["filter"] == filter)]
        found = found.set_index("outcome")["auroc"]
        kinds = {"TP": label * own, "FP": (1 - label) * own, "FN": label * (1 - own)}
        assert set(found.index) == {"TN", *(kind for kind, which in kinds.items() if which.any())}
        for kind in set(found.index) - {"TN"}:
            expected = roc_auc_score(kinds[kind], responses[known, filter])
            assert found[kind] == pytest.approx(expected, abs=1e-9)
    assert not table.isna().any(axis=None) and not confused.isna().any(axis=None)


def test_outcomes_of_each_class(cheat):
    table = insight.outcomes(cheat.run)
    assert " ".join(table) == (
        "layer filter class auroc_error r_confidence r_correct precision recall threshold q"
    )
    row = table[(table["layer"] == "honest.conv2") & (table["class"] == "even")].iloc[0]
    wrong = cheat.run.outcomes["correct"][:, CHEATED] == 0
    values = cheat.run["honest.conv2"].samples.max[:, row["filter"]]
    assert row["auroc_error"] == pytest.approx(roc_auc_score(wrong, values), abs=1e-9)
    sure = cheat.run.outcomes["confidence"][:, CHEATED].astype(float)
    assert row["r_confidence"] == pytest.approx(np.corrcoef(values, sure)[0, 1], abs=1e-6)


def test_the_report_and_tensorboard_name_the_classes(cheat, tmp_path):
    page = fastconv.report(cheat.run, tmp_path / "report.html").read_text()
    assert all(f'"{name}"' in page for name in FINDINGS)
    assert "loop, even" in page and "no class" in page
    fastconv.export.tensorboard(cheat.run, tmp_path / "log")


# -- runs in memory ------------------------------------------------------------------------------

N, K = 120, 3
LABELS = np.random.default_rng(0).integers(0, 2, (N, K))


def values(filters=6, seed=0):
    return np.random.default_rng(seed).normal(size=(N, filters)).astype(np.float32)


def test_labels_that_are_given_and_their_names():
    planted = values()
    planted[:, 2] += 3 * LABELS[:, 1]
    for given, name in ((LABELS, 1), (pd.DataFrame(LABELS, columns=list("abc")), "b")):
        table = insight.classes(Run({"a": planted}), labels=given)
        best = table.loc[table["q"].idxmin()]
        assert (best["filter"], best["class"]) == (2, name)
    table = insight.classes(Run({"a": planted}, LABELS, classes=["x", "y"]))  # of something else
    assert table["class"].unique().tolist() == [0, 1, 2]


def test_missing_labels_are_left_out_class_by_class():
    labels = LABELS.copy()
    labels[:40, 1] = -1
    labels[:, 2] = 1  # of no sample unknown, but the same for all: left out
    table = insight.classes(Run({"a": values()}, labels, skipped=[7]))
    assert table["class"].unique().tolist() == [0, 1]
    rest = insight.classes(Run({"a": values()[40:]}, LABELS[40:, 1]))
    found = table[table["class"] == 1]["auroc"].to_numpy()
    np.testing.assert_array_equal(found, rest[rest["class"] == 1]["auroc"].to_numpy())
    by_nan = np.where(labels < 0, np.nan, labels)
    again = insight.classes(Run({"a": values()}, skipped=[7]), labels=by_nan)
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("table", ["classes", "outcomes", "misfires", "confusion", "biases"])
def test_nothing_is_found_in_noise(table):
    """Under the null hypothesis at most 5 % of the rows are called at q < 0.05."""
    called = rows = 0
    for draw in range(200):
        rng = np.random.default_rng(draw)
        labels = rng.integers(-1, 2, (90, 3))
        said = np.where(rng.random((90, 3)) < 0.2, 1, labels).clip(0)
        found = np.maximum(rng.normal(size=(90, 8)), 0).astype(np.float32)
        run = Run({"a": found}, labels, outcomes(labels, said, rng.random((90, 3))))
        given = (rng.integers(0, 2, 90),) if table == "biases" else ()
        frame = getattr(insight, table)(run, *given)
        called, rows = called + (frame["q"] < 0.05).sum(), rows + len(frame)
    assert rows > 200 * 8 * 0.8
    assert called <= 0.05 * rows


ALL_RIGHT = outcomes(LABELS, LABELS, np.full(LABELS.shape, 0.9))
BAD = {
    "values": (
        lambda: insight.classes(Run({"a": values()}), LABELS * 3),
        "0 or 1 for each .* got 3",
    ),
    "text": (
        lambda: insight.classes(Run({"a": values()}), np.full((N, 2), "yes")),
        "must be 0 or 1, one a class",
    ),
    "length": (
        lambda: insight.classes(Run({"a": values()}), LABELS[:5]),
        r"one a sample, 120, got shape \[5, 3\]",
    ),
    "one class": (lambda: insight.classes(Run({"a": values()}, LABELS * 0 + 1)), "one class only"),
    "no label": (
        lambda: insight.misfires(Run({"a": values()}, None, outcomes(LABELS * 0 - 1, LABELS))),
        "no labels",
    ),
    "all right": (
        lambda: insight.outcomes(Run({"a": values()}, LABELS, ALL_RIGHT)),
        r"fewer than two wrong outcomes \(0\)",
    ),
    "no peers": (
        lambda: insight.biases(Run({"a": values()}, LABELS), LABELS[:, 0]),
        "follows the class: .* give labels= of one class",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_says_what_to_do(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_ablate_says_what_is_wrong_with_labels(cheat):
    def ablate(labels):
        fastconv.ablate(cheat.model, cheat.clean[:64], {"honest.relu2": [0]}, labels=labels)

    for labels, message in (
        (np.ones((64, 2)), "vector of 2 values, .* gives 3 scores"),
        (np.full((64, 3), 0.5), "must be 0 or 1 .* got 0.5"),
        (np.zeros((64, 3)), "no sample has any of the classes"),
    ):
        with pytest.raises(InputError, match=message):
            ablate(labels)
