"""Fingerprints and keys: which data was read."""

import subprocess
import sys

import torch
from helpers.data_sets import Numbered
from torch.utils.data import (
    Subset,
    TensorDataset,
)

from fastconv.data import open_data


def test_trap_14_keys_name_the_samples_they_belong_to(tmp_path):
    class Files(Numbered):
        root = tmp_path
        samples = tuple((str(tmp_path / f"c/{i}.png"), 0) for i in range(10))

    assert open_data(Files()).keys()[:2] == ["c/0.png", "c/1.png"]
    assert open_data(Subset(Files(), [7, 2])).keys() == ["c/7.png", "c/2.png"]
    assert open_data(Numbered()).keys() is None
    short = Files(9)  # ten names for nine samples: none can be trusted
    assert open_data(short).keys() is None


def test_fingerprint_is_the_same_in_another_process_and_for_any_reader():
    code = (
        "import numpy as np, torch, json; from fastconv.data import open_data;"
        "x = torch.arange(600.).reshape(100, 2, 3);"
        "print(json.dumps(open_data(x).fingerprint(), sort_keys=True))"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)]
    assert runs[0] == runs[1]
    x = torch.arange(600.0).reshape(100, 2, 3)
    assert open_data(x).fingerprint() == open_data(x.numpy()).fingerprint()


def test_trap_8_fingerprint_tells_other_data_apart():
    """Another value, resolution, length, label, dtype or name: another fingerprint."""
    x = torch.arange(60.0).reshape(10, 1, 6)
    last, labels = x.clone(), torch.arange(10)
    last[-1, -1, -1] += 1e-3
    others = [
        *(x, last, x.reshape(10, 1, 2, 3), x[:9], x.double()),
        *(TensorDataset(x, labels), TensorDataset(x, labels + 1)),
    ]
    prints = [tuple(map(str, open_data(o).fingerprint().values())) for o in others]
    assert len(set(prints)) == len(others)


def test_fingerprint_covers_every_key():
    class Files(Numbered):
        keys = tuple(f"{i}.png" for i in range(100))

    first, renamed = Files(100), Files(100)
    renamed.keys = (*Files.keys[:50], "other.png", *Files.keys[51:])
    assert open_data(first).fingerprint() != open_data(renamed).fingerprint()
