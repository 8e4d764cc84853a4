"""`fastconv bench` runs both sides on the data that is given, and leaves the model as it was."""

import copy
import re
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

from fastconv.cli.main import main
from fastconv.demo import bench
from fastconv.demo.bench import costs
from fastconv.errors import InputError

FACTORY = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

def data():
    return torch.rand(9, 3, 12, 12)
"""


def test_what_an_extraction_costs_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FACTORY)
    given = ["net.py:model", "net.py:data", "--samples", "5", "--batch-size", "2", "--rounds", "1"]
    assert main(["bench", *given]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("5 samples in memory, batches of 2, ")
    for row in ("forward, contiguous", "forward, channels last", "extract, as by default"):
        assert re.search(rf"^{row} +\d+\.\d{{3}} s +[\d,]+\.\d samples/s$", shown, re.MULTILINE)
    assert "extract / fastest forward = " in shown and "all 9 samples: about " in shown
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".h5"] == []
    assert main(["bench", "net.py:model"]) == 2
    assert main(["bench", *given[:2], "--rounds", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "fastconv: give MODEL and DATA, or neither",
        "fastconv: rounds must be 1 or more, got 0",
    ]


def test_without_arguments_it_is_the_network_of_the_demo(capsys):
    assert main(["bench", "--samples", "4", "--rounds", "1"]) == 0
    assert "all 1,797 samples" in capsys.readouterr().out


def test_the_model_stays_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = copy.deepcopy(model.state_dict())
    found = costs(model, torch.rand(3, 3, 9, 9), samples=8, batch_size=2, rounds=2)
    assert (found.samples, found.length, len(found.ratios)) == (3, 3, 2)
    assert model.training and model[0].weight.is_contiguous()
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_every_round_extracts_all_samples_and_one(monkeypatch):
    extracted = []

    def extract(model, data, *args, **options):
        extracted.append(len(data))
        return plain(model, data, *args, **options)

    plain = bench.extract
    monkeypatch.setattr(bench, "extract", extract)
    costs(nn.Conv2d(3, 4, 3), torch.rand(5, 3, 9, 9), samples=5, batch_size=2, rounds=2)
    assert extracted == [5, 1] * 3  # the first is no round


class Watched(nn.Conv2d):
    seen: ClassVar[set] = set()

    def forward(self, x):
        self.seen.add((self.training, torch.is_grad_enabled()))
        return super().forward(x)


def test_the_plain_forward_is_that_of_inference():
    costs(Watched(3, 4, 3).train(), torch.rand(2, 3, 9, 9), samples=2, batch_size=2, rounds=1)
    assert Watched.seen == {(False, False)}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3)

    def forward(self, a, b):
        return self.conv(a) + b


class Stream(IterableDataset):
    def __iter__(self):
        yield from (torch.full((3, 8, 8), float(i)) for i in range(6))


def test_several_inputs_and_streams():
    samples = [((torch.rand(2, 9), torch.rand(4, 7)), 0)] * 3
    found = costs(Two(), samples, samples=2, batch_size=2, rounds=1)
    assert list(found.forward) == ["contiguous"] and found.length == 3
    model = nn.Conv2d(3, 4, 3)
    found = costs(model, Stream(), samples=5, batch_size=2, rounds=1)
    assert (found.samples, found.length) == (5, None)
    with pytest.raises(InputError, match="the stream has fewer than 7 samples; ask for fewer"):
        costs(model, Stream(), samples=7, batch_size=2, rounds=1)
