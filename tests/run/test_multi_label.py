"""Outcomes of a multi-label model: labels that are vectors of 0 and 1, one value a class."""

import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from helpers.findings import ASKED, FINDINGS, IMAGES, LABELS, K, N, Scans, model
from helpers.networks import datasets
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import fastconv
from fastconv import perturb
from fastconv.errors import FastconvError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run.h5"
    fastconv.extract(model(), Scans(), out, **ASKED).close()
    return out


def differing(a, b):
    a, b = datasets(a), datasets(b)
    return sorted(a.keys() ^ b.keys()) + [k for k in a if k in b and a[k] != b[k]]


def test_outcomes_are_those_of_each_class(whole):
    with torch.no_grad():
        scores = model()(IMAGES)
    with fastconv.open(whole) as run:
        found = run.outcomes
        assert np.array_equal(found["label"], LABELS)
        assert np.array_equal(found["prediction"], scores > 0)
        np.testing.assert_allclose(found["confidence"], scores.sigmoid(), atol=1e-6)
        assert np.array_equal(found["correct"], (scores > 0) == LABELS)  # never where unknown
        kinds = [found[name].dtype for name in ("label", "prediction", "confidence", "correct")]
        assert kinds == [np.int64, np.int64, np.float32, np.uint8]
        assert np.array_equal(run.samples.labels, LABELS) and run.classes == list(Scans.classes)


FORMS = {
    "floats": lambda x, y: (x, y),
    "-1 for unknown": lambda x, y: (x, y.nan_to_num(-1).long()),
    "list": lambda x, y: [x, y.nan_to_num(-1).int().tolist()],
    "list of floats": lambda x, y: (x, y.tolist()),
    "numpy": lambda x, y: (x.numpy(), y.numpy()),
    "half": lambda x, y: (x, y.half()),
    "dict": lambda x, y: {"image": x, "labels": y},
}


class Stream(IterableDataset):
    classes = Scans.classes

    def __iter__(self):
        return (Scans()[i] for i in range(N))


def stacked(samples):
    return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


SOURCES = {name: (lambda form=form: Scans(form)) for name, form in FORMS.items()} | {
    "tensors": lambda: TensorDataset(IMAGES, LABELS),
    "stream": Stream,
    "collated": lambda: DataLoader(Scans(), collate_fn=stacked),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_labels_of_any_form(whole, tmp_path, kind):
    run = fastconv.extract(model(), SOURCES[kind](), tmp_path / "run.h5", **ASKED)
    with fastconv.open(whole) as expected:
        for name, values in expected.outcomes.items():
            np.testing.assert_allclose(run.outcomes[name], values, atol=1e-6)


def test_booleans(tmp_path):
    data = Scans(lambda x, y: (x, y > 0))
    run = fastconv.extract(model(), data, tmp_path / "run.h5", **ASKED)
    assert np.array_equal(run.outcomes["label"], LABELS == 1)


@pytest.mark.parametrize("count", [2, 3])
def test_merged_shards_have_the_bytes_of_one_run(whole, tmp_path, count):
    parts = [tmp_path / f"{i}.h5" for i in range(count)]
    for i, part in enumerate(parts):
        fastconv.extract(model(), Scans(), part, **ASKED, shard=(i, count))
    fastconv.merge(parts, tmp_path / "merged.h5")
    assert differing(whole, tmp_path / "merged.h5") == []


def test_a_killed_run_ends_with_the_same_bytes(whole, tmp_path):
    out = tmp_path / "run.h5"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-m", "helpers.findings", str(out), threads]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((tmp_path / "run.h5.parts").glob("u*.h5"))) == 3
    fastconv.extract(model(), Scans(), out, **ASKED, num_workers=1)
    assert differing(whole, out) == []


@pytest.mark.parametrize("name", ["label", "prediction", "confidence", "correct"])
def test_verify_finds_a_changed_outcome(whole, tmp_path, name):
    """Also where its checksum was made to fit."""
    assert fastconv.verify(whole, model(), Scans())
    out = tmp_path / "run.h5"
    out.write_bytes(whole.read_bytes())
    with h5py.File(out, "r+") as file:
        data = file["run/outcomes"][name]
        values = data[()]
        values[7, 1] = 1 - values[7, 1]
        data[...] = values
        del data.attrs["crc32"]
    report = fastconv.verify(out, model(), Scans())
    assert [check.name for check in report.checks if not check.ok] == ["outcomes"]
    assert f"{name} of sample 7" in str(report)


def test_verify_with_labels_of_another_kind_fails(whole):
    data = Scans(lambda x, y: (x, int(y[0])))
    assert "label of sample 0 (22 samples)" in str(fastconv.verify(whole, model(), data))


def test_skipped_samples(tmp_path):
    data = Scans(broken=(0, 4, 5, 6, 7))  # the whole second batch
    run = fastconv.extract(model(), data, tmp_path / "run.h5", **ASKED, on_error="skip")
    found = run.outcomes
    assert (found["label"][5] == -1).all() and (found["prediction"][0] == -1).all()
    assert np.isnan(found["confidence"][4]).all() and not found["correct"][7].any()
    assert np.array_equal(found["label"][8:], LABELS[8:])
    assert fastconv.verify(tmp_path / "run.h5", model(), data)


def test_attacks_raise_the_loss_of_every_class(tmp_path):
    """Those that are unknown are left alone."""
    loss = nn.BCEWithLogitsLoss(reduction="sum")
    changes = {"label": perturb.fgsm(0.05), "said": perturb.pgd(0.05, against="prediction")}
    fastconv.extract(model(), Scans(), tmp_path / "run.h5", **ASKED, conditions=changes)
    labels, known = LABELS.clone(), LABELS >= 0
    changed = changes["label"](IMAGES, torch.arange(N), model=model(), labels=labels)
    before, after = (loss(model()(x)[known], labels[known].float()) for x in (IMAGES, changed))
    assert after > 1.01 * before
    assert torch.equal(
        changed[0],
        changes["label"](IMAGES[:1], torch.tensor([0]), model=model(), labels=labels[:1])[0],
    )


def test_floats_are_labels_of_one_logit_too(tmp_path):
    data = TensorDataset(IMAGES, FINDINGS[:, :1].float())
    run = fastconv.extract(model(1), data, tmp_path / "run.h5", **ASKED)
    assert run.outcomes["label"].shape == (N,)
    assert np.array_equal(run.outcomes["label"], FINDINGS[:, 0])
    assert np.array_equal(
        run.outcomes["correct"], run.outcomes["prediction"] == run.outcomes["label"]
    )


BAD = {
    "no 0 or 1": (
        Scans(lambda x, y: (x, y.nan_to_num(1) * 0.3)),
        "label of sample 0 has the value",
    ),
    "later": (
        Scans(lambda x, y: (x, torch.where(x.sum() == IMAGES[9].sum(), 2.0, y.nan_to_num(1)))),
        "label of sample 9 has the value 2; .* vector of 0 and 1",
    ),
    "another length": (Scans(lambda x, y: (x, y[:2])), "vector of 2 values, .* gives 3 scores"),
    "lengths": (
        Scans(lambda x, y: (x, y[: 3 if y[2] == 1 else 2])),
        r"the label of sample \d+ is 2 values, that of sample 0 3 values; all must be alike",
    ),
    "tensors": (TensorDataset(IMAGES, torch.rand(N, K)), "a label has the value"),
    "an index as float": (Scans(lambda x, y: (x, 2.0)), r"\(an integer: y.long\(\)\)"),
    "collated": (
        DataLoader(Scans(), collate_fn=lambda s: (stacked(s)[0], torch.rand(len(s), K))),
        "a label of sample.* has the value",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_one_line(tmp_path, case):
    data, message = BAD[case]
    with pytest.raises(FastconvError, match=message) as caught:
        fastconv.extract(model(), data, tmp_path / "run.h5", **ASKED)
    assert "\n" not in str(caught.value)


def test_targets_that_are_no_labels_need_no_outcomes(tmp_path):
    """A regression: nothing is said of classes, and its targets are left alone."""
    data = TensorDataset(IMAGES, torch.rand(N, K))
    run = fastconv.extract(model(), data, tmp_path / "run.h5", **ASKED | {"outcomes": False})
    assert run.samples.labels is None
