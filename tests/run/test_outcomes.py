"""Outcomes are those of the model, whatever its output and the classes are."""

import numpy as np
import pytest
import torch
from helpers.networks import network
from helpers.patients import CONDITIONS, N, Patients, logits, model
from torch import nn
from torch.utils.data import TensorDataset

import fastconv
from fastconv.errors import InputError


def test_outcomes_are_those_of_the_model(whole):
    scores = logits(Patients().images)
    with fastconv.open(whole) as run:
        found = run.outcomes
        assert np.array_equal(found["label"], np.arange(N) % 4)
        assert np.array_equal(found["prediction"], scores.argmax(1))
        np.testing.assert_allclose(found["confidence"], scores.softmax(1).amax(1), atol=1e-6)
        assert np.array_equal(found["correct"], scores.argmax(1).numpy() == np.arange(N) % 4)
        assert found["confidence"].dtype == np.float32 and found["correct"].dtype == np.uint8
        assert run.classes == list(Patients.classes)
        assert run.columns["site"].tolist() == ["nörd" if i % 3 else "süd" for i in range(N)]
        assert np.array_equal(run.columns["age"], 20 + np.arange(N))
        assert run.conditions == tuple(CONDITIONS)


class Several(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = network(), kind

    def forward(self, x):
        scores = self.net(x)
        return {"dict": {"features": x, "logits": scores}, "tuple": (x, scores)}[self.kind]


@pytest.mark.parametrize(
    ("kind", "output"), [("dict", "logits"), ("tuple", 1), ("dict", lambda out: out["logits"])]
)
def test_output_names_the_scores(tmp_path, kind, output):
    asked = {"batch_size": 4, "topk": 1, "progress": False, "outcomes": True}
    own = Several(kind)
    run = fastconv.extract(own, Patients(), tmp_path / "run.h5", **asked, output=output)
    assert np.array_equal(run.outcomes["prediction"], logits(Patients().images).argmax(1))
    given = {"output": output} if callable(output) else {}
    assert fastconv.verify(run.path, own, Patients(), **given)
    if callable(output):
        with pytest.raises(InputError, match="give it: output="):
            fastconv.verify(run.path, own, Patients())


def squeezed(model):
    """A model whose head squeezes: [K] for a batch of one."""

    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            return self.net(x)[:, :, None].squeeze()

    return Squeezed()


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_a_batch_of_one_may_lose_its_dimension(tmp_path, batch_size):
    assert N % 3 == N % 7 == 1
    own, asked = squeezed(network()), {"outcomes": True, "topk": 1, "progress": False}
    run = fastconv.extract(own, Patients(), tmp_path / "run.h5", batch_size=batch_size, **asked)
    assert np.array_equal(run.outcomes["prediction"], logits(Patients().images).argmax(1))
    assert fastconv.verify(run.path, own, Patients())
    layer = run.layers[0]
    found = fastconv.ablate(own, Patients(), {layer: [0]}, batch_size=batch_size)
    assert found["accuracy"][0] == run.outcomes["correct"].mean()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (0, "a tensor, which has no 0; leave output= out"),
        ("mT", "a tensor, which has no 'mT'"),
        (lambda scores: scores.repeat(2, 1), r"here of 1 samples; the output is \[2, 4\]"),
    ],
)
def test_scores_of_another_number_of_samples_are_refused_before_any_work(tmp_path, output, message):
    asked = {"outcomes": True, "output": output, "progress": False}
    with pytest.raises(InputError, match=message):
        fastconv.extract(model(), Patients(), tmp_path / "run.h5", **asked)
    with pytest.raises(InputError, match=message.replace("1 s", "22 s").replace("2, 4", "44, 4")):
        fastconv.ablate(model(), Patients(), {model_layer(): [0]}, output=output)


def model_layer():
    return next(name for name, m in model().named_modules() if isinstance(m, nn.Conv2d))


def test_one_logit(tmp_path):
    own = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    labels = torch.arange(N) % 2
    data = TensorDataset(Patients().images, labels)
    run = fastconv.extract(own, data, tmp_path / "run.h5", outcomes=True, progress=False)
    with torch.no_grad():
        p = own(Patients().images).sigmoid().flatten().numpy()
    assert np.array_equal(run.outcomes["prediction"], (p > 0.5).astype(int))
    np.testing.assert_allclose(run.outcomes["confidence"], np.maximum(p, 1 - p), atol=1e-6)


def test_labels_that_the_model_has_no_class_for(tmp_path):
    data = TensorDataset(Patients().images, torch.arange(N))
    with pytest.raises(InputError, match=r"a label is \d+, but the model has 4 classes"):
        fastconv.extract(model(), data, tmp_path / "run.h5", outcomes=True, progress=False)


class OddNames(Patients):
    """Classes as ImageNet names them: two of one name, the others of several."""

    classes = (("crane",), "crane", ("tench", "Tinca tinca"), "a\udcff")


def test_odd_names_of_classes_reach_every_table_and_picture(tmp_path):
    asked = {"samples": True, "outcomes": True, "topk": 2, "progress": False}
    with fastconv.extract(model(), OddNames(), tmp_path / "run.h5", **asked) as run:
        assert run.classes == ["crane (0)", "crane (1)", "tench, Tinca tinca", "a?"]
        table = fastconv.insight.classes(run)
        assert set(table["class"]) == set(run.classes)
        assert (table.groupby(["layer", "filter", "class"]).size() == 1).all()
        assert fastconv.export.figures(run, tmp_path / "figures", run.layers[0])
        assert fastconv.report(run, tmp_path / "report.html")
