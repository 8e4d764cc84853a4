"""`fastconv compare` and `fastconv ablate`."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import fastconv
from fastconv.cli.main import main

FACTORY = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

def data():
    torch.manual_seed(1)
    return TensorDataset(torch.randn(30, 1, 6, 6), torch.arange(30) % 3)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FACTORY)
    return tmp_path


def test_compare_prints_matches_and_cka(place, capsys):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3))
    data = torch.randn(20, 1, 9, 9)
    for name in ("a.h5", "b.h5"):
        fastconv.extract(model, data, name, samples=True, progress=False).close()
    assert main(["compare", "a.h5", "b.h5", "--csv", "table.csv"]) == 0
    printed = capsys.readouterr().out
    assert "similarity" in printed and "0: linear CKA 1.0000" in printed
    table = pd.read_csv("table.csv", dtype={"layer": str})
    assert table["match"].tolist() == table["filter"].tolist() == [0, 1, 2, 3, 0, 1]
    assert main(["compare", "a.h5", "b.h5", "--csv", "missing/table.csv"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_compare_says_which_layers_are_left_out(place, capsys, recwarn):
    last, data = nn.Conv2d(4, 2, 3), torch.randn(5, 1, 9, 9)
    for name, size in (("a.h5", 3), ("b.h5", 1)):
        model = nn.Sequential(nn.Conv2d(1, 4, size), last)
        fastconv.extract(model, data, name, progress=False).close()
    assert main(["compare", "a.h5", "b.h5"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == (
        "0 is left out: its kernels are [1, 3, 3] and [1, 1, 1]; it needs samples=True of the "
        "same data"
    )
    assert not [w for w in recwarn if "left out" in str(w.message)]


def test_ablate_prints_the_table_and_takes_ranges(place, capsys):
    arguments = ["ablate", "net.py:model", "net.py:data", "--filters", "0:0,2-3"]
    assert main([*arguments, "--csv", "table.csv"]) == 0
    assert "accuracy_without" in capsys.readouterr().out
    table = pd.read_csv("table.csv")
    assert table["filter"].tolist() == [0] * 3 + [2] * 3 + [3] * 3
    np.save("labels.npy", np.zeros(30, int))
    assert main([*arguments, "--labels", "labels.npy", "--together", "--value", "mean"]) == 0
    assert "0: 0, 2, 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("filters", "rest", "message"),
    [
        ("0:9", [], "0 has filters 0 to 3, got 9"),
        ("conv:0", [], "no layer matches 'conv'"),
        ("0", [], "expected LAYER:0,3,8-11, got '0'"),
        ("0:x", [], "expected LAYER:0,3,8-11, got '0:x'"),
        ("0:3-1", [], "expected LAYER:0,3,8-11"),
        ("0:0", ["--labels", "none.npy"], "none.npy is not an .npy of labels"),
    ],
)
def test_ablate_says_in_one_line_what_is_wrong(place, capsys, filters, rest, message):
    try:
        code = main(["ablate", "net.py:model", "net.py:data", "--filters", filters, *rest])
    except SystemExit as error:
        code = error.code
    printed = capsys.readouterr().err
    assert code == 2 and message in printed and len(printed.strip().splitlines()) == 1
