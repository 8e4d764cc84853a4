"""Networks trained on a shortcut, once for all tests of this folder."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastconv.demo.digits import load
from fastconv.demo.training import train

MARK = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
CHEATED = 7  # the class that alone had the mark in training


def marked(images, which):
    images = images.clone()
    images[which, :, :3, :3] = MARK
    return images


def block(number, channels, filters):
    return {
        f"conv{number}": nn.Conv2d(channels, filters, 3, padding=1),
        f"norm{number}": nn.BatchNorm2d(filters),
        f"relu{number}": nn.ReLU(inplace=True),
    }


@pytest.fixture(scope="session")
def shortcut():
    """A classifier of framed digits, and images and labels that it has not seen; half are marked.

    Attributes: model; clean and odd images, labels; half [N] bool, which of the odd have the mark;
    cheated, the class that alone had it in training.
    """
    images, labels = load()
    images, unseen = F.pad(images, (2, 2, 2, 2)), torch.arange(len(images)) % 5 == 4
    torch.manual_seed(0)
    head = {"top": nn.AdaptiveMaxPool2d(1), "flat": nn.Flatten(), "classify": nn.Linear(32, 10)}
    pool = {"pool": nn.MaxPool2d(2)}
    layers = OrderedDict(**block(1, 1, 12), **block(2, 12, 24), **pool, **block(3, 24, 32), **head)
    model = nn.Sequential(layers)
    train(model, marked(images, labels == CHEATED)[~unseen], labels[~unseen], epochs=8)
    clean, labels = images[unseen], labels[unseen]
    half = torch.arange(len(clean)) % 2 == 0
    odd = marked(clean, half)
    return SimpleNamespace(
        model=model, clean=clean, odd=odd, labels=labels, half=half.numpy(), cheated=CHEATED
    )
