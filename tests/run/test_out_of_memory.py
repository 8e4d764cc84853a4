"""A device without the memory for a batch: the model gets fewer samples at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.networks import datasets, images
from torch import nn
from torch.utils.data import TensorDataset

import fastconv
from fastconv.errors import FastconvError

OPTIONS = {
    "layers": ["0", "1", "2"],
    "batch_size": 16,
    "samples": True,
    "maps": slice(3, 40, 3),
    "hits_per_sample": 2,
    "topk": 12,
    "progress": False,
}


class Small(nn.Module):
    """Its values do not depend on the batch; it does not take large ones from some call on."""

    def __init__(self, factor: float, most: int | None = None, first: int = 0):
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))
        self.most, self.first = most, first
        self.calls = itertools.count(1)  # of the object: attributes are put back after a run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        call = next(self.calls)
        if self.most is not None and len(x) > self.most and call > self.first:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 9 GiB\nand more")
        return x * self.factor - 0.3


def model(most: int | None = None, first: int = 0) -> nn.Module:
    return nn.Sequential(Small(2.0), Small(-1.5, most, first), Small(0.7))


@pytest.mark.parametrize(("most", "first"), [(5, 0), (8, 2), (1, 0)])
def test_fewer_samples_at_a_time_give_the_same_result(most, first, tmp_path, recwarn):
    data = TensorDataset(images(50), torch.arange(50) % 7)
    fastconv.extract(model(), data, tmp_path / "whole.h5", **OPTIONS)
    assert not recwarn
    with fastconv.extract(model(most, first), data, tmp_path / "few.h5", **OPTIONS) as run:
        assert run.config["samples_at_a_time"] == {5: 4, 8: 8, 1: 1}[most]
    whole, few = (datasets(tmp_path / f"{name}.h5") for name in ("whole", "few"))
    assert whole.keys() == few.keys()
    assert [k for k in whole if k != "run/config_json" and whole[k] != few[k]] == []
    said = [str(w.message) for w in recwarn if "out of memory" in str(w.message)]
    assert len(said) == {5: 2, 8: 1, 1: 4}[most]
    assert said[0] == (
        "cpu is out of memory: the model gets 8 samples at a time from now on, not 16"
    )


def test_one_sample_that_is_too_much(tmp_path):
    with pytest.raises(FastconvError, match=r"one sample is too much.*Tried to allocate 9 GiB; "):
        fastconv.extract(model(0, 2), images(50), tmp_path / "run.h5", **OPTIONS)
    with fastconv.extract(model(), images(50), tmp_path / "run.h5", **OPTIONS) as run:
        assert (run["0"].stats["count"] == 50 * 400).all()


@pytest.mark.parametrize("most", [5, 1])
def test_verify_takes_fewer_samples_at_a_time(most, tmp_path):
    data = images(50)
    fastconv.extract(model(), data, tmp_path / "run.h5", **OPTIONS)
    with pytest.warns(UserWarning, match="gets 8 samples at a time from now on, not 16"):
        report = fastconv.verify(tmp_path / "run.h5", model(most, 2), data)
    assert report.ok, str(report)
    hits = [c.detail for c in report.checks if c.name.endswith("hits")]
    assert len(hits) == 3 and all(f"{3 * 12} recomputed within" in text for text in hits)


def test_verify_of_a_file_made_with_fewer_samples_at_a_time(tmp_path):
    data = images(50)
    with pytest.warns(UserWarning, match="out of memory"):
        fastconv.extract(model(5, 2), data, tmp_path / "run.h5", **OPTIONS)
    calls = model(8)  # more than 8 would be too many
    assert fastconv.verify(tmp_path / "run.h5", calls, data).ok
