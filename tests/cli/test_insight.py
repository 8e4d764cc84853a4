"""`fastconv extract --conditions --outcomes` and `fastconv insight`."""

import pandas as pd
import pytest

import fastconv
from fastconv.cli.main import main

FACTORY = """
import torch
from torch import nn
from torch.utils.data import Dataset

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

class Data(Dataset):
    keys = [f"scan{i}.png" for i in range(30)]

    def __len__(self):
        return 30

    def __getitem__(self, i):
        image = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(i))
        return {"image": image, "label": i % 3, "site": "north" if i % 2 else "south"}

def data():
    return Data()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = tmp_path_factory.mktemp("place")
    (found / "net.py").write_text(FACTORY)
    return found


@pytest.fixture
def run(place, monkeypatch):
    monkeypatch.chdir(place)
    if not (place / "run.h5").exists():
        command = ["extract", "net.py:model", "net.py:data", "-o", "run.h5", "--samples", "--quiet"]
        command += ["--outcomes", "--columns", "site", "--conditions", "rot90,noise0.1,fgsm2"]
        assert main(command) == 0
    return "run.h5"


def test_extract_keeps_outcomes_columns_and_conditions(run):
    with fastconv.open(run) as found:
        assert found.conditions == ("rot90", "noise0.1", "fgsm2")
        assert set(found.columns["site"]) == {"north", "south"}
        assert len(found.outcomes["correct"]) == 30


@pytest.mark.parametrize(
    ("table", "rows"), [("responses", 12), ("classes", 12), ("outcomes", 4), ("design", 1)]
)
def test_tables_are_printed_and_written(run, capsys, table, rows):
    assert main(["insight", table, run, "--csv", "table.csv"]) == 0
    printed = capsys.readouterr().out
    assert "layer" in printed and len(printed.splitlines()) >= rows
    assert len(pd.read_csv("table.csv")) == rows


def test_biases_of_a_column_of_the_run_or_of_a_file(run, capsys):
    assert main(["insight", "biases", run, "--group", "site", "--csv", "own.csv"]) == 0
    own = pd.read_csv("own.csv")
    assert set(own["group"]) == {"north", "south"}
    values = ["north" if i % 2 else "south" for i in range(30)]
    by_key = pd.DataFrame({"key": [f"scan{i}.png" for i in range(30)], "site": values})
    tables = {
        "ordered.csv": pd.DataFrame({"site": values}),
        "keys.csv": by_key.sample(frac=1, random_state=0),
        "indices.csv": pd.DataFrame({"sample": range(30), "site": values}).iloc[::-1],
    }
    for name, frame in tables.items():
        frame.to_csv(name, index=False)
        assert main(["insight", "biases", run, "--group", f"{name}:site", "--csv", "b.csv"]) == 0
        pd.testing.assert_frame_equal(pd.read_csv("b.csv"), own)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["biases"], "--group FILE.csv:COLUMN goes with"),
        (["classes", "--group", "site"], "--group FILE.csv:COLUMN goes with"),
        (["biases", "--group", "sex"], "no column 'sex', it has site"),
        (["biases", "--group", "missing.csv:site"], "missing.csv is no CSV file"),
        (["biases", "--group", "short.csv:site"], "the table has 2 rows, the run 30 samples"),
        (["biases", "--group", "short.csv:sex"], "no column 'sex'; it has site"),
        (["biases", "--group", "twice.csv:site"], "two rows of sample 3"),
    ],
)
def test_bad_input_is_one_line(run, capsys, arguments, said):
    pd.DataFrame({"site": ["a", "b"]}).to_csv("short.csv", index=False)
    pd.DataFrame({"sample": [3, 3], "site": ["a", "b"]}).to_csv("twice.csv", index=False)
    assert main(["insight", arguments[0], run, *arguments[1:]]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_a_condition_that_does_not_exist(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    command = ["extract", "net.py:model", "net.py:data", "-o", "bad.h5", "--conditions", "turn15"]
    assert main(command) == 2
    assert "no condition is called 'turn15'; known are rot<degrees>" in capsys.readouterr().err


SEVERAL = """
def findings():
    class Findings(Data):
        classes = ["edema", "mass", "fracture"]

        def __getitem__(self, i):
            vector = [float(i % 2), float(i % 3 == 0), float("nan") if i < 4 else float(i % 5 > 2)]
            return super().__getitem__(i)["image"], torch.tensor(vector)

    return Findings()
"""


def test_several_labels_a_sample(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place / "several.py").write_text(FACTORY + SEVERAL)
    command = ["extract", "several.py:model", "several.py:findings", "-o", "several.h5", "--quiet"]
    assert main([*command, "--samples", "--outcomes"]) == 0
    for table in ("classes", "outcomes", "misfires"):
        assert main(["insight", table, "several.h5", "--csv", "table.csv"]) == 0
        found = set(pd.read_csv("table.csv")["class"])
        assert found <= {"edema", "mass", "fracture"} and found
    ablate = ["ablate", "several.py:model", "several.py:findings", "--filters", "0:0", "--csv"]
    assert main([*ablate, "table.csv"]) == 0
    assert pd.read_csv("table.csv")["class"].tolist() == [0, 1, 2]
    assert main(["verify", "several.h5", "several.py:model", "several.py:findings"]) == 0
    assert "outcomes: of 30 samples recomputed" in capsys.readouterr().out
