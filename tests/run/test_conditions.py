"""Outcomes, columns and conditions: right, the same bytes however made, and verified."""

import functools

import h5py
import numpy as np
import pytest
import torch
from helpers.networks import datasets, network
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import fastconv
from fastconv import perturb
from fastconv.errors import InputError

N = 22
CONDITIONS = {
    "rot15": perturb.rotate(15),
    "noise": perturb.noise(0.1),
    "fgsm": perturb.fgsm(2 / 255),
}
ASKED = {
    "batch_size": 4,
    "topk": 3,
    "samples": True,
    "outcomes": True,
    "columns": ["site", "age"],
    "conditions": CONDITIONS,
    "progress": False,
}


class Patients(Dataset):
    """Dict samples with text and numbers, of classes that have names."""

    classes = ("healthy", "ill", "dead", "unknown")

    def __init__(self, count=N, broken=()):
        generator = torch.Generator().manual_seed(1)
        self.images = torch.rand(count, 3, 20, 20, generator=generator)
        self.broken = broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError("cannot be read")
        site = "nörd" if i % 3 else "süd"
        return {"image": self.images[i], "label": i % 4, "site": site, "age": 20 + i}


@functools.cache
def model():
    return network()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run.h5"
    fastconv.extract(model(), Patients(), out, **ASKED)
    return out


def logits(images):
    was = model().training
    with torch.no_grad():
        found = model().eval()(images)
    model().train(was)
    return found


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


def test_a_condition_measures_the_changed_samples(whole, tmp_path):
    """As a run over the changed data set does, bit for bit."""
    images = Patients().images
    changed = {
        "rot15": perturb.rotate(15)(images, torch.arange(N)),
        "noise": torch.cat(
            [perturb.noise(0.1)(images[i : i + 1], torch.tensor([i])) for i in range(N)]
        ),
    }
    asked = {"batch_size": 4, "topk": 3, "samples": True, "progress": False}
    with fastconv.open(whole) as run:
        for name, data in changed.items():
            other = fastconv.extract(model(), data, tmp_path / f"{name}.h5", **asked)
            for layer in run.layers:
                found, expected = run[layer].condition(name), other[layer]
                for stat in ("mean", "var", "min", "max", "count"):
                    assert np.array_equal(found.stats[stat], expected.stats[stat])
                assert np.array_equal(found.samples.max, expected.samples.max)
                assert np.array_equal(found.samples.mean, expected.samples.mean)
                assert np.array_equal(found.topk.values, expected.topk.values)
                assert np.array_equal(found.topk.sample, expected.topk.sample)
                assert np.array_equal(found.quantile([0.1, 0.9]), expected.quantile([0.1, 0.9]))
                assert np.array_equal(found.patch(0, 0), expected.patch(0, 0))
        plain = fastconv.extract(model(), images, tmp_path / "plain.h5", **asked)["0"].samples
        assert np.array_equal(run["0"].samples.max, plain.max)
        assert not np.array_equal(run["0"].condition("fgsm").samples.max, plain.max)


@pytest.mark.parametrize("count", [2, 3])
def test_merged_shards_have_the_bytes_of_one_run(whole, tmp_path, count):
    for i in range(count):
        fastconv.extract(model(), Patients(), tmp_path / f"{i}.h5", **ASKED, shard=(i, count))
    fastconv.merge([tmp_path / f"{i}.h5" for i in range(count)], tmp_path / "merged.h5")
    assert differing(whole, tmp_path / "merged.h5") == []


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_run_that_was_interrupted_ends_with_the_same_bytes(whole, tmp_path, monkeypatch, after):
    monkeypatch.setattr("fastconv.run.save_clock.SaveClock.due", lambda self: True)
    taken = []

    def patched(original):
        def take(self, number, *rest):
            taken.append(number)
            if len(taken) > after:
                raise KeyboardInterrupt
            return original(self, number, *rest)

        return take

    from fastconv.run.recording import Recording

    out = tmp_path / "run.h5"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Recording, "take", patched(Recording.take))
        fastconv.extract(model(), Patients(), out, **ASKED)
    fastconv.extract(model(), Patients(), out, **ASKED)
    assert differing(whole, out) == []


def differing(a, b):
    a, b = datasets(a), datasets(b)
    return sorted(a.keys() ^ b.keys()) + [k for k in a if k in b and a[k] != b[k]]


def test_workers_change_nothing(whole, tmp_path):
    fastconv.extract(model(), Patients(), tmp_path / "run.h5", **ASKED, num_workers=2)
    assert differing(whole, tmp_path / "run.h5") == []


def test_several_hits_of_a_sample(tmp_path):
    """Whose candidate lists may be too short, so that a second forward runs, changed as well."""
    asked = {"batch_size": 4, "topk": 4, "hits_per_sample": 3, "progress": False}
    images = Patients().images
    run = fastconv.extract(
        model(), images, tmp_path / "a.h5", **asked, conditions={"r": perturb.rotate(15)}
    )
    changed = perturb.rotate(15)(images, torch.arange(N))
    other = fastconv.extract(model(), changed, tmp_path / "b.h5", **asked)
    for layer in run.layers:
        for name in ("values", "sample", "position"):
            found, expected = (
                getattr(r.topk, name) for r in (run[layer].condition("r"), other[layer])
            )
            assert np.array_equal(found, expected)


def test_the_model_is_left_as_it_was(tmp_path):
    own = network(3)
    before = {k: v.clone() for k, v in own.state_dict().items()}
    state = torch.get_rng_state()
    fastconv.extract(own, Patients(), tmp_path / "run.h5", **ASKED)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in own.state_dict().items())
    assert own.training and all(p.grad is None and p.requires_grad for p in own.parameters())
    own(Patients().images[:2]).sum().backward()


def test_skipped_samples(tmp_path):
    run = fastconv.extract(
        model(), Patients(broken=(0, 9)), tmp_path / "run.h5", **ASKED, on_error="skip"
    )
    assert run.outcomes["prediction"][9] == -1 and np.isnan(run.outcomes["confidence"][9])
    assert run.columns["site"][9] == "" and np.isnan(run.columns["age"][9])
    assert run.columns["age"][10] == 30
    assert np.isnan(run[run.layers[0]].condition("rot15").samples.max[9]).all()
    report = fastconv.verify(tmp_path / "run.h5", model(), Patients(broken=(0, 9)))
    assert report, str(report)


def test_verify_recomputes_outcomes_and_conditions(whole):
    report = fastconv.verify(whole, model(), Patients())
    assert report, str(report)
    names = [check.name for check in report.checks]
    assert "outcomes" in names and "0 hits under rot15" in names
    assert "22 samples recomputed bit for bit" in str(report)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("run/outcomes/prediction", "outcomes"),
        ("run/outcomes/confidence", "outcomes"),
        ("run/outcomes/correct", "outcomes"),
        ("run/layers/0/conditions/rot15/topk/value", "0 hits under rot15"),
        ("run/layers/0/conditions/noise/samples/mean", "0 statistics under noise"),
        ("run/layers/0/conditions/fgsm/samples/max", "0 statistics under fgsm"),
    ],
)
def test_verify_finds_a_changed_outcome_or_response(whole, tmp_path, place, said):
    """Also where its checksum was made to fit."""
    out = tmp_path / "run.h5"
    out.write_bytes(whole.read_bytes())
    with h5py.File(out, "r+") as file:
        data = file[place]
        values = data[()]
        flat = values.reshape(-1)
        flat[1] = flat[1] + 1 if values.dtype.kind in "iu" else flat[1] + np.float32(0.5)
        data[...] = values
        for name in ("crc32", "chunks_crc32"):
            data.attrs.pop(name, None)
    report = fastconv.verify(out, model(), Patients())
    assert not report
    assert said in [check.name for check in report.checks if not check.ok]


def test_the_same_call_returns_the_file_and_another_condition_does_not(whole):
    run = fastconv.extract(model(), Patients(), whole, **ASKED)
    assert run.conditions == tuple(CONDITIONS)
    other = {**ASKED, "conditions": {**CONDITIONS, "rot15": perturb.rotate(16)}}
    with pytest.raises(fastconv.errors.FingerprintError, match=r"conditions\.rot15"):
        fastconv.extract(model(), Patients(), whole, **other)


def darker(batch, samples):
    return batch * 0.5


def test_any_callable_is_a_condition_and_verify_asks_for_it(tmp_path):
    asked = {"batch_size": 4, "topk": 3, "progress": False, "conditions": {"dark": darker}}
    run = fastconv.extract(model(), Patients(), tmp_path / "run.h5", **asked)
    assert run.conditions == ("dark",)
    with pytest.raises(InputError, match="give it: conditions="):
        fastconv.verify(run.path, model(), Patients())
    assert fastconv.verify(run.path, model(), Patients(), conditions={"dark": darker})
    assert not fastconv.verify(run.path, model(), Patients(), conditions={"dark": lambda b, s: b})


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


def wrong_shape(batch, samples):
    return batch[..., 1:]


def nan(batch, samples):
    return torch.where(batch > 0.5, torch.nan, batch)


BAD = {
    "shape": ({"conditions": {"cut": wrong_shape}}, "'cut' makes .* must stay"),
    "nan": ({"conditions": {"gone": nan}}, "'gone' makes NaN or infinity of sample 0"),
    "random": (
        {"conditions": {"r": lambda batch, samples: batch + torch.rand_like(batch)}},
        "'r' changes one sample in two ways: draw .* seeded by the index",
    ),
    "kind": ({"conditions": {"list": lambda b, s: [b]}}, "'list' gives a list"),
    "no function": ({"conditions": {"x": 3}}, r"a function of \(batch, samples\), got 3"),
    "no mapping": ({"conditions": [perturb.flip()]}, "must map names to changes"),
    "no name": ({"conditions": {"": perturb.flip()}}, "must be a text, got ''"),
    "rank": ({"conditions": {"t": perturb.time_shift(2)}}, "'t': time_shift is for 1-D or 3-D"),
    "column": ({"columns": ["sex"]}, "column 'sex' of sample 0 is missing: the sample has image"),
    "output": ({"outcomes": True, "output": "logits"}, "has no 'logits'"),
    "output alone": ({"output": "logits"}, "give outcomes=True"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_work(tmp_path, case):
    asked, message = BAD[case]
    with pytest.raises(fastconv.errors.FastconvError, match=message) as caught:
        fastconv.extract(model(), Patients(), tmp_path / "run.h5", progress=False, **asked)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_condition_is_not_blamed_for_what_the_sample_holds(tmp_path):
    images = Patients().images
    images[3, 0, 2, 5] = torch.inf
    conditions = {"flip": perturb.flip(), "rot": perturb.rotate(15)}
    with fastconv.extract(
        model(), images, tmp_path / "run.h5", conditions=conditions, samples=True, progress=False
    ) as run:
        layer = run[run.layers[0]]
        assert np.isfinite(layer.condition("rot").samples.max).all(1).sum() >= N - 1
    assert fastconv.verify(tmp_path / "run.h5", model(), images).ok


def test_labels_that_the_model_has_no_class_for(tmp_path):
    data = TensorDataset(Patients().images, torch.arange(N))
    with pytest.raises(InputError, match=r"a label is \d+, but the model has 4 classes"):
        fastconv.extract(model(), data, tmp_path / "run.h5", outcomes=True, progress=False)


class Odd(Patients):
    """Classes as ImageNet names them: two of one name, the others of several."""

    classes = (("crane",), "crane", ("tench", "Tinca tinca"), "a\udcff")

    def __init__(self, value=None):
        super().__init__()
        self.value = value

    def __getitem__(self, i):
        return super().__getitem__(i) | {"value": self.value if i == 20 else 1}


def test_odd_names_of_classes_reach_every_table_and_picture(tmp_path):
    asked = {"samples": True, "outcomes": True, "topk": 2, "progress": False}
    with fastconv.extract(model(), Odd(), tmp_path / "run.h5", **asked) as run:
        assert run.classes == ["crane (0)", "crane (1)", "tench, Tinca tinca", "a?"]
        table = fastconv.insight.classes(run)
        assert set(table["class"]) == set(run.classes)
        assert (table.groupby(["layer", "filter", "class"]).size() == 1).all()
        assert fastconv.export.figures(run, tmp_path / "figures", run.layers[0])
        assert fastconv.report(run, tmp_path / "report.html")


def test_odd_values_of_columns(tmp_path):
    asked = {"columns": ["value"], "topk": 1, "batch_size": 4, "progress": False}
    with fastconv.extract(model(), Odd("\udcff"), tmp_path / "a.h5", **asked) as run:
        assert run.columns["value"][20] == "?"
    with pytest.raises(
        fastconv.errors.DataError, match=r"'value' of sample 20 is 1000.*give a text"
    ):
        fastconv.extract(model(), Odd(10**20), tmp_path / "b.h5", **asked)


class Coded(Patients):
    """A column of codes: numbers, texts and nothing, in an order that no batch shows whole."""

    def __getitem__(self, i):
        code = [1, 2, None, 2.5, "a", None, 7][i // 3 % 7]
        return super().__getitem__(i) | {"code": code, "age": [3, None, 4.5][i // 8]}


def test_columns_of_several_kinds_do_not_depend_on_batches_or_shards(tmp_path):
    asked = {"columns": ["code", "age"], "topk": 1, "samples": True, "progress": False}
    texts = ["1", "2", "", "2.5", "a", "", "7"]
    wanted = [texts[i // 3 % 7] for i in range(N)]
    for size in (1, 3, 4, 100):
        path = tmp_path / f"{size}.h5"
        with fastconv.extract(model(), Coded(), path, batch_size=size, **asked) as run:
            assert run.columns["code"].tolist() == wanted
            ages = [3.0] * 8 + [np.nan] * 8 + [4.5] * 6
            np.testing.assert_array_equal(run.columns["age"], ages)
    groups = set(fastconv.insight.biases(fastconv.open(path), "code")["group"])
    assert groups <= {"1", "2", "2.5", "a", "7"} and len(groups) > 2  # what is missing is none
    parts = [tmp_path / f"part{i}.h5" for i in range(3)]
    for i, part in enumerate(parts):
        fastconv.extract(model(), Coded(), part, batch_size=4, shard=(i, 3), **asked)
    fastconv.merge(parts, tmp_path / "merged.h5")
    merged, whole = (datasets(tmp_path / f"{name}.h5") for name in ("merged", "4"))
    assert [k for k in whole if whole[k] != merged.get(k)] == []


def test_another_lambda_is_another_run(tmp_path):
    path, asked = tmp_path / "run.h5", {"topk": 1, "outcomes": True, "progress": False}

    def extract(amount, output):
        conditions = {"dark": lambda batch, samples: batch * amount}
        fastconv.extract(
            model(), Patients(), path, conditions=conditions, output=output, **asked
        ).close()

    extract(0.5, lambda out: out * 2)
    extract(0.5, lambda out: out * 2)  # the same
    with pytest.raises(fastconv.errors.FingerprintError, match="conditions"):
        extract(0.6, lambda out: out * 2)
    with pytest.raises(fastconv.errors.FingerprintError, match="output"):
        extract(0.5, lambda out: out * 3)
    conditions = {"dark": lambda batch, samples: batch * 0.5}
    own = {"conditions": conditions, "output": lambda out: out * 2}
    assert fastconv.verify(path, model(), Patients(), **own)


def test_attacks_and_columns_of_data_without_them(tmp_path):
    images = Patients().images
    with pytest.raises(InputError, match='no labels to attack; use against="prediction"'):
        fastconv.extract(model(), images, tmp_path / "a.h5", conditions={"f": perturb.fgsm(0.1)})
    with pytest.raises(InputError, match="whose samples are dicts"):
        fastconv.extract(model(), images, tmp_path / "a.h5", columns=["site"])
