"""Outcomes as a table, and joined with a table from beside the run."""

import sys

import numpy as np
import pandas as pd
import pytest
from helpers import synthetic

import fastconv
from fastconv import insight
from fastconv.errors import InputError
from fastconv.store.writer import write_run

N = 11
AGES = pd.DataFrame({"sample": [3, 0, 7], "age": [40, 50, 60], "site": ["a", None, "b"]})


def run_with(path, **changed):
    table = synthetic.described_samples()
    for name, value in changed.items():
        setattr(table, name, value)
    write_run(
        path,
        {},
        [synthetic.layer_result(synthetic.layer_info("conv1", 2, size=4))[0]],
        samples=table,
    )
    return fastconv.open(path)


@pytest.fixture
def run(tmp_path):
    with run_with(tmp_path / "run.h5") as found:
        yield found


def test_the_table_has_the_outcomes_of_every_sample(run):
    table = run.outcomes.to_pandas()
    assert list(table) == ["sample", "key", "label", "prediction", "confidence", "correct"]
    assert table["key"].tolist() == list(run.samples.keys)
    for name in ("label", "prediction", "confidence", "correct"):
        np.testing.assert_array_equal(table[name], run.outcomes[name])


def test_join_puts_rows_in_the_order_of_the_samples(run, tmp_path):
    AGES.to_csv(tmp_path / "patients.csv", index=False)
    for given in (AGES, tmp_path / "patients.csv", str(tmp_path / "patients.csv")):
        table = run.outcomes.join(given, on="sample")
        assert list(table) == [*run.outcomes.to_pandas(), "age", "site"]
        assert table["sample"].tolist() == list(range(N))
        assert table["age"].dropna().to_dict() == {0: 50, 3: 40, 7: 60}
        pd.testing.assert_frame_equal(table, run.outcomes.join(given))  # that column is looked for


def test_join_by_name_whatever_the_column_is_called(run):
    keys = list(run.samples.keys)
    others = pd.DataFrame({"file": [keys[4], "elsewhere", keys[2]], "age": [1, 2, 3]})
    table = run.outcomes.join(others, on="file")
    assert table["age"].dropna().to_dict() == {2: 3, 4: 1}
    assert table["file"][4] == keys[4]
    renamed = others.rename(columns={"file": "key"})
    assert run.outcomes.join(renamed)["age"].dropna().to_dict() == {2: 3, 4: 1}
    assert insight.by_sample(others, run, on="file")["age"].dropna().tolist() == [3, 1]


def test_join_in_order(run):
    table = run.outcomes.join(pd.DataFrame({"age": range(N)}, index=range(50, 50 + N)))
    assert table["age"].tolist() == list(range(N))


def test_outcomes_of_several_classes(tmp_path):
    label = np.arange(2 * N).reshape(N, 2) % 2
    outcomes = {"label": label, "prediction": label, "confidence": label * 0.5, "correct": label}
    for names, expected in ((["edema", "mass"], "label_mass"), (["edema"], "label_1")):
        path = tmp_path / f"{expected}.h5"
        with run_with(path, outcomes=outcomes, labels=label, classes=names) as run:
            table = run.outcomes.join(AGES)
            assert table[expected].tolist() == label[:, 1].tolist()
            assert len(table.columns) == 2 + 8 + 2
            np.testing.assert_array_equal(run.samples.labels, label)


def test_classes_of_one_name_are_told_apart(tmp_path):
    label = np.arange(3 * N).reshape(N, 3) % 2
    outcomes = {"label": label, "prediction": label, "confidence": label * 0.5, "correct": label}
    named = {"labels": label, "classes": ["crane", "", "crane"]}
    with run_with(tmp_path / "run.h5", outcomes=outcomes, **named) as run:
        assert run.classes == ["crane (0)", "class (1)", "crane (2)"]
        table = run.outcomes.to_pandas()
        for number, name in enumerate(run.classes):
            assert table[f"label_{name}"].tolist() == label[:, number].tolist()
        assert list(run.samples.classes) == named["classes"]  # as stored


def test_without_outcomes(tmp_path):
    with run_with(tmp_path / "run.h5", outcomes={}) as run:
        assert run.outcomes == {} and not run.outcomes
        with pytest.raises(InputError, match="no outcomes; extract it with outcomes=True"):
            run.outcomes.join(AGES)


BAD = {
    "no such column": ({"on": "patient"}, AGES, "no column 'patient'; it has sample, age, site"),
    "two rows": ({}, AGES.assign(sample=[3, 3, 1]), "two rows of sample 3; give one a sample"),
    "index too high": ({}, AGES.assign(sample=[3, 11, 1]), "has sample 11, .* samples 0 ... 10"),
    "index below 0": ({}, AGES.assign(sample=[3, -1, 1]), "has sample -1, which the run lacks"),
    "no whole number": ({}, AGES.assign(sample=[3, 0.5, 1]), "has sample 0.5, which the run lacks"),
    "other rows": ({}, AGES[["age"]], "has 3 rows, the run 11 samples; add a column 'sample'"),
    "none of its names": ({"on": "site"}, AGES, "none of the table's sites is a sample"),
    "a name twice": ({}, AGES.assign(correct=1), "both have correct; rename it in the table"),
    "no file": ({}, "missing.csv", "missing.csv is no CSV file that can be read"),
    "no table": ({}, 7, "7 is no CSV file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_does_not_fit_is_refused_in_one_line(run, case):
    options, table, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        run.outcomes.join(table, **options)
    assert "\n" not in str(caught.value)


def test_without_pandas(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert len(run.outcomes["label"]) == N  # the mapping needs none
    with pytest.raises(InputError, match=r"pandas is missing: pip install 'fastconv\[insight\]'"):
        run.outcomes.to_pandas()
