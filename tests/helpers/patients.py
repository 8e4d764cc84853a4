"""A described data set, its model, and the run of everything that is asked of it."""

import functools

import torch
from torch.utils.data import Dataset

from fastconv import perturb
from helpers.networks import datasets, network

N = 22
CONDITIONS = {
    "rot15": perturb.rotate(15),
    "noise": perturb.noise(0.1),
    "fgsm": perturb.fgsm(2 / 255),
}
ASKED = {
    "batch_size": 4,
    "topk": 3,
    "samples": True,
    "outcomes": True,
    "columns": ["site", "age"],
    "conditions": CONDITIONS,
    "progress": False,
}


class Patients(Dataset):
    """Dict samples with text and numbers, of classes that have names."""

    classes = ("healthy", "ill", "dead", "unknown")

    def __init__(self, count=N, broken=()):
        generator = torch.Generator().manual_seed(1)
        self.images = torch.rand(count, 3, 20, 20, generator=generator)
        self.broken = broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError("cannot be read")
        site = "nörd" if i % 3 else "süd"
        return {"image": self.images[i], "label": i % 4, "site": site, "age": 20 + i}


@functools.cache
def model():
    return network()


def logits(images):
    was = model().training
    with torch.no_grad():
        found = model().eval()(images)
    model().train(was)
    return found


def differing(a, b):
    a, b = datasets(a), datasets(b)
    return sorted(a.keys() ^ b.keys()) + [k for k in a if k in b and a[k] != b[k]]
