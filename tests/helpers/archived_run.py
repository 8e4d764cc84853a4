"""A run that every version of the format has a file of: model and data made of whole numbers.

`python tests/helpers/archived_run.py VERSION` keeps the files in `tests/archive`, for ever.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import fastconv

ARCHIVE = Path(__file__).parents[1] / "archive"
OPTIONS = {"batch_size": 4, "topk": 2, "samples": True, "maps": [1, 9], "progress": False}


def model():
    made = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, stride=2))
    with torch.no_grad():
        for n, parameter in enumerate(made.parameters()):
            values = torch.arange(parameter.numel()) * 7 % 11 - 5 + n
            parameter.copy_(values.view_as(parameter) / 8)
    return made


def data():
    return (torch.arange(12 * 81).view(12, 1, 9, 9) * 37 % 101 - 50) / 16


def keep(version):
    fastconv.extract(model(), data(), ARCHIVE / f"extracted-{version}.h5", **OPTIONS).close()
    for i in (0, 1):
        out = ARCHIVE / f"extracted-{version}-shard-{i}.h5"
        fastconv.extract(model(), data(), out, shard=(i, 2), **OPTIONS).close()


if __name__ == "__main__":
    keep(sys.argv[1])
