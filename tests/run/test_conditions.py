"""Conditions: right, the same bytes however made, and verified."""

import h5py
import numpy as np
import pytest
import torch
from helpers.networks import network
from helpers.patients import ASKED, CONDITIONS, N, Patients, differing, model

import fastconv
from fastconv import perturb
from fastconv.errors import InputError


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


def test_a_run_stopped_while_its_file_is_written_measures_nothing_again(
    whole, tmp_path, monkeypatch
):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    out = tmp_path / "run.h5"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fastconv.run.output_file.write_run", stop)
        fastconv.extract(model(), Patients(), out, **ASKED)
    monkeypatch.setattr("fastconv.run.recording.Recording.take", None)
    fastconv.extract(model(), Patients(), out, **ASKED)
    assert differing(whole, out) == []


def test_a_short_run_saves_no_state_to_read_it_again(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("fastconv.store.parts.PartWriter.add_layer", None)
    fastconv.extract(model(), Patients(), tmp_path / "run.h5", **ASKED)
    assert differing(whole, tmp_path / "run.h5") == []


def test_the_overview_is_of_the_samples_as_they_are(whole):
    with fastconv.open(whole) as run:
        layer = run[run.layers[0]]
        changed = layer.condition("noise")
        assert set(layer.holds) - set(changed.holds) >= {"overview"}
        with pytest.raises(InputError, match="patches=True, for the samples as they are"):
            changed.overview  # noqa: B018


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
