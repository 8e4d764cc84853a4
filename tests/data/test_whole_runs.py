"""Data in the forms people have them: extracted and verified like the array of the same values."""

import random

import numpy as np
import pytest
import torch
from helpers.networks import images
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

import fastconv

QUIET = {"batch_size": 4, "progress": False, "thumbnails": False}
X = images(10)


class Made(Dataset):
    """Samples that a function makes of an index; reading draws random numbers, to no effect."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        torch.rand(3), np.random.rand(), random.random()
        return self.make(index)


class Streamed(IterableDataset):
    def __iter__(self):
        return ((x, i % 3) for i, x in enumerate(X))


def present(samples):
    return default_collate([s for s in samples if s is not None])


KINDS = {
    "x": lambda: Made(lambda i: X[i]),
    "numpy": lambda: Made(lambda i: (X[i].numpy(), i % 3)),
    "double": lambda: Made(lambda i: X[i].double()),
    "dict": lambda: Made(lambda i: {"label": torch.tensor([i % 3]), "data": X[i]}),
    "by rank": lambda: Made(lambda i: {"weights": torch.ones(7), "scan 3": X[i]}),
    "loader": lambda: DataLoader(Made(lambda i: (X[i], i % 3)), batch_size=3, shuffle=True),
    "collate": lambda: DataLoader(Made(lambda i: X[i]), collate_fn=present),
    "tensors": lambda: TensorDataset(X, torch.arange(10) % 3),
    "stream": Streamed,
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return fastconv.extract(net(), X, tmp_path_factory.mktemp("run") / "x.h5", **QUIET)


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_that_of_the_array_and_random_states_are_left_alone(
    kind, tmp_path, reference
):
    data, model = KINDS[kind](), net()
    before = states()
    run = fastconv.extract(model, data, tmp_path / "run.h5", **QUIET)
    report = fastconv.verify(tmp_path / "run.h5", model, data)
    assert states() == before
    assert report, report
    for name in reference.layers:
        for column in ("values", "sample", "position"):
            ours, expected = (getattr(r[name].topk, column) for r in (run, reference))
            assert np.array_equal(ours, expected), (name, column)


def test_none_and_a_filtering_collate_fn_leave_samples_out(tmp_path):
    data = DataLoader(Made(lambda i: None if i in (0, 6) else (X[i], i % 3)), collate_fn=present)
    run = fastconv.extract(net(), data, tmp_path / "run.h5", on_error="skip", **QUIET)
    assert list(run.samples.skipped) == [0, 6]
    assert run.samples.labels.tolist() == [-1, 1, 2, 0, 1, 2, -1, 1, 2, 0]
    assert run["0"].stats["count"].tolist() == [8 * 18 * 18] * 4
    assert fastconv.verify(tmp_path / "run.h5", net(), data)
