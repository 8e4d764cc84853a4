"""Scans of several findings each, and a multi-label model of them.

Run as a script it begins a run into the file it is given, and is killed in its fourth batch:
`python -m helpers.findings run.h5`.
"""

import functools
import os
import signal
import sys

import torch
from torch import nn
from torch.utils.data import Dataset

import fastconv
from fastconv.run.recording import Recording
from fastconv.run.save_clock import SaveClock

N, K = 22, 3
IMAGES = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(1))
FINDINGS = torch.stack([torch.arange(N) % 2, torch.arange(N) % 3 // 2, torch.arange(N) < 9], 1)
UNKNOWN = (torch.arange(N) % 5 == 0)[:, None] & torch.tensor([False, True, False])
LABELS = torch.where(UNKNOWN, -1, FINDINGS)
ASKED = {"batch_size": 4, "topk": 3, "samples": True, "outcomes": True, "progress": False}


class Scans(Dataset):
    """Each with a vector of findings, float as its loss takes it, NaN where unknown."""

    classes = ("edema", "mass", "fracture")

    def __init__(self, form=None, broken=()):
        self.form, self.broken = form or (lambda x, y: (x, y)), broken

    def __len__(self):
        return N

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError("cannot be read")
        known = LABELS[i].float()
        return self.form(IMAGES[i], torch.where(known < 0, torch.nan, known))


@functools.cache
def model(scores=K):
    torch.manual_seed(0)
    top = (nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, scores))
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *top).eval()


def killed_in_the_fourth_batch(out):
    take = Recording.take

    def dying(self, number, *rest):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        take(self, number, *rest)

    Recording.take = dying
    SaveClock.due = lambda self: True
    fastconv.extract(model(), Scans(), out, **ASKED)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    killed_in_the_fourth_batch(sys.argv[1])
