"""Ablation: the replay is the model, the figures are scikit-learn's, the intervals are paired."""

import numpy as np
import pytest
import torch
from helpers.networks import images, network
from helpers.planted import noise
from scipy import stats
from sklearn import metrics
from torch import nn
from torch.utils.data import TensorDataset

import fastconv
from fastconv.capture import plan_capture
from fastconv.errors import InputError, LayerError
from fastconv.insight.replay import KeptOutput, Recording, rerun

LAYERS = ["0", "1", "2", "3.conv", "3.conv#1", "3.relu", "3.relu#1", "3", "5", "6", "7"]


def first_to_zero(output):
    output[:, :3] = 0


class Blocks(nn.Module):
    """Branches: an addition, a concatenation, a gate and a split."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.gate, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu_(self.stem(x))
        y = torch.cat([self.left(x), self.right(x)], 1)
        x = x + y * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        a, b = x.chunk(2, 1)
        return self.head(torch.cat([a.amax((2, 3)), b.mean((2, 3))], 1))


class Overwrites(nn.Module):
    """Writes in place to what a later operation behind the layer has read before."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.conv(x) + x
        x.mul_(0)
        return self.head((x + y).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (network(), LAYERS),
        (Blocks(), ["stem", "left", "right", "gate"]),
        (Overwrites(), ["stem", "conv"]),
    ],
)
def test_what_is_replayed_is_bit_for_bit_what_the_whole_model_gives(model, layers):
    x, called = images(5), KeptOutput(model)
    chosen = [[layer] for layer in layers] + [layers[:2], layers[-2:], layers]
    changed = 0
    for names in chosen:
        targets = plan_capture(model, x[:1], names)
        recording = Recording(called, targets, x)
        changes = dict.fromkeys(names, first_to_zero)
        found = recording.replay(changes)
        assert torch.equal(found, rerun(called, targets, x, changes))
        assert torch.equal(found, recording.replay(changes))  # the recording is not used up
        changed += not torch.equal(found, recording.output)
        assert torch.equal(recording.replay({names[0]: lambda output: None}), recording.output)
        overwritten = isinstance(model, Overwrites) and names == ["conv"]
        assert recording.rerun == (3 if overwritten else 0)
    assert changed == len(chosen)


@pytest.fixture(scope="module")
def classifier():
    """A classifier of noise, trained a little, with data and labels."""
    torch.manual_seed(0)
    x, y = noise(150, 1, 10, 10), torch.arange(150) % 3
    x += torch.sin(torch.arange(10) * (y[:, None] + 1.0))[:, None, None]
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 3),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


def answers(model, x, filter=None, value=0.0):
    """Prediction and confidence, by a hook of its own."""

    def hook(module, inputs, output):
        output = output.clone()
        output[:, filter] = value
        return output

    handle = model[0].register_forward_hook(hook) if filter is not None else None
    with torch.no_grad():
        confidence, prediction = model(x).double().softmax(1).max(1)
    if handle is not None:
        handle.remove()
    return prediction.numpy(), confidence.numpy()


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_the_figures_are_those_of_scikit_learn(classifier, value):
    model, x, y = classifier
    table = fastconv.ablate(model, TensorDataset(x, y), {"0": [1, 4]}, value, batch_size=40)
    assert (
        table["filter"].tolist() == [1] * 3 + [4] * 3 and table["class"].tolist() == [0, 1, 2] * 2
    )
    with torch.no_grad():
        means = model[0](x).double().mean((0, 2, 3))
    whole = answers(model, x)
    for filter in (1, 4):
        rows = table[table["filter"] == filter]
        other = answers(model, x, filter, means[filter].item() if value == "mean" else 0)
        for suffix, (prediction, confidence) in (("", whole), ("_without", other)):
            precision, recall, *_ = metrics.precision_recall_fscore_support(
                y, prediction, zero_division=0
            )
            np.testing.assert_allclose(rows[f"precision{suffix}"], precision, atol=1e-9)
            np.testing.assert_allclose(rows[f"recall{suffix}"], recall, atol=1e-9)
            accuracy = metrics.accuracy_score(y, prediction)
            np.testing.assert_allclose(rows[f"accuracy{suffix}"], accuracy, atol=1e-9)
            wanted = [confidence[y == c].mean() for c in range(3)]
            np.testing.assert_allclose(rows[f"confidence{suffix}"], wanted, atol=1e-6)
        for c in range(3):
            paired = stats.ttest_rel(other[1][y == c], whole[1][y == c]).confidence_interval()
            row = rows[rows["class"] == c].iloc[0]
            assert row["confidence_low"] == pytest.approx(paired.low, abs=1e-6)
            assert row["confidence_high"] == pytest.approx(paired.high, abs=1e-6)


def test_intervals_are_those_of_the_paired_bootstrap(classifier):
    model, x, y = classifier
    row = fastconv.ablate(model, TensorDataset(x, y), {"0": [1]}).iloc[1]
    before, after = answers(model, x)[0], answers(model, x, 1)[0]
    y = y.numpy()

    def precision_change(label, one, two):
        hits = [((p == 1) & (label == 1)).sum() / max(1, (p == 1).sum()) for p in (one, two)]
        return hits[1] - hits[0]

    def accuracy_change(label, one, two):
        return (two == label).mean() - (one == label).mean()

    for name, change in (("precision", precision_change), ("accuracy", accuracy_change)):
        found = stats.bootstrap(
            (y, before, after), change, paired=True, vectorized=False, method="percentile",
            n_resamples=4000, rng=np.random.default_rng(1),
        ).confidence_interval  # fmt: skip
        assert row[f"{name}_low"] == pytest.approx(found.low, abs=0.02)
        assert row[f"{name}_high"] == pytest.approx(found.high, abs=0.02)
        assert row[f"{name}_low"] <= row[f"{name}_change"] <= row[f"{name}_high"]


def test_batches_do_not_matter_and_the_model_is_left_as_it_was(classifier):
    model, x, y = classifier
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tables = [
        fastconv.ablate(model, x, {"0": range(5)}, labels=y, batch_size=n) for n in (7, 64, 150)
    ]
    for other in tables[1:]:
        for name in tables[0]:
            if tables[0][name].dtype.kind == "f":
                np.testing.assert_allclose(other[name], tables[0][name], atol=1e-6)
    assert tables[0].attrs == {"replayed": 5 * 22, "rerun": 0}
    assert model.training and not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_filters_together_are_one_ablation(classifier):
    model, x, y = classifier
    data = TensorDataset(x, y)
    table = fastconv.ablate(model, data, {"0": range(5), "1": [0]}, together=True)
    assert table["layer"].unique().tolist() == ["0 + 1"]
    assert table["filter"].unique().tolist() == ["0: 0, 1, 2, 3, 4; 1: 0"]
    assert table["accuracy_without"][0] == pytest.approx(1 / 3)  # nothing is left to tell by


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_dimensions_and_a_single_logit(rank):
    torch.manual_seed(0)
    convolution = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
    model = nn.Sequential(convolution(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1))
    x = noise(20, 2, *(6,) * rank)
    with torch.no_grad():
        y = (model(x)[:, 0] > 0).long()
    table = fastconv.ablate(model, x, {"0": [0, 1, 2, 3]}, labels=y)
    assert (table["accuracy"] == 1).all() and table["class"].unique().tolist() == [0, 1]
    assert table["accuracy_without"].min() < 1
    assert table["confidence"].between(0.5, 1).all()
    assert not table.isna().to_numpy().any()


def test_bad_input_is_told_in_one_line(classifier):
    model, x, y = classifier
    cases = [
        ((x, {"0": [0]}), {}, InputError, "no labels; give labels="),
        ((x, {"conv": [0]}), {"labels": y}, LayerError, "no layer matches 'conv'"),
        ((x, {"0": [5]}), {"labels": y}, InputError, "0 has filters 0 to 4, got 5"),
        ((x, {"0": [-1]}), {"labels": y}, InputError, "0 has filters 0 to 4, got -1"),
        ((x, {"0": []}), {"labels": y}, InputError, "no filters of 0 are named"),
        ((x, {"0": "all"}), {"labels": y}, InputError, r"integers in a list .*, got 'all'"),
        ((x, {"0": 3}), {"labels": y}, InputError, r"integers in a list .*, got 3"),
        ((x, {"0": [1.5]}), {"labels": y}, InputError, r"integers in a list .*, got \[1.5\]"),
        ((x, {}), {"labels": y}, InputError, "mapping such as"),
        ((x, ["0"]), {"labels": y}, InputError, "mapping such as"),
        ((x, {"0": [0]}), {"labels": y[:9]}, InputError, r"labels must be \[150\]"),
        ((x, {"0": [0]}), {"labels": y / 2}, InputError, "labels must be integers"),
        ((x, {"0": [0]}), {"labels": y + 1}, InputError, "label 3 is out of range"),
        ((x, {"0": [0]}), {"labels": y - 1}, InputError, "label -1 is out of range"),
        ((x, {"0": [0]}), {"labels": y, "value": "one"}, InputError, "zero or mean"),
        ((x, {"0": [0]}), {"labels": y, "batch_size": 0}, InputError, "batch_size"),
    ]
    for arguments, options, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            fastconv.ablate(model, *arguments, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"need class scores \[n, K\]"):
        fastconv.ablate(nn.Sequential(nn.Conv2d(1, 2, 3)), x, {"0": [0]}, labels=y)


class Named(nn.Module):
    """A classifier that takes a picture and a number, and answers with a dict."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image, weight):
        return {"logits": self.model(image) * weight[:, None], "extra": image.sum()}


def test_several_inputs_and_a_dict_of_outputs(classifier):
    model, x, y = classifier
    wanted = fastconv.ablate(model, TensorDataset(x, y), {"0": [1]})
    data = TensorDataset(x, y)

    def forward(named, batch):
        return named(batch, torch.ones(len(batch)))

    found = fastconv.ablate(Named(model), data, {"model.0": [1]}, forward=forward, output="logits")
    assert found.drop(columns="layer").equals(wanted.drop(columns="layer"))

    def twice(named, batch):
        first, second = (named(batch, torch.full((len(batch),), w))["logits"] for w in (0.25, 0.75))
        return first + second

    found = fastconv.ablate(
        Named(model), data, {"model.0": [1], "model.0#1": [1]}, forward=twice, together=True
    )
    for name in ("accuracy_without", "recall_without", "confidence_without"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)
    with pytest.raises(InputError, match="say which part has the class scores"):
        fastconv.ablate(Named(model), data, {"model.0": [1]}, forward=forward)


class Answer:
    """An output that is none of torch's."""

    def __init__(self, logits):
        self.logits = logits


def test_an_output_of_a_class_of_its_own_is_computed_anew(classifier):
    model, x, y = classifier

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return Answer(self.model(batch))

    wanted = fastconv.ablate(model, TensorDataset(x, y), {"0": [1]})
    found = fastconv.ablate(Wrapped(), TensorDataset(x, y), {"model.0": [1]}, output="logits")
    assert found.drop(columns="layer").equals(wanted.drop(columns="layer"))
    assert found.attrs == {"replayed": 0, "rerun": 3}
