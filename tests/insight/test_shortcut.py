"""A planted shortcut end to end: found by overlap, proved by ablation."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import fastconv
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


@pytest.fixture(scope="module")
def trained():
    """A classifier of framed digits, and images and labels that it has not seen."""
    images, labels = load()
    images, unseen = F.pad(images, (2, 2, 2, 2)), torch.arange(len(images)) % 5 == 4
    torch.manual_seed(0)
    head = {"top": nn.AdaptiveMaxPool2d(1), "flat": nn.Flatten(), "classify": nn.Linear(32, 10)}
    pool = {"pool": nn.MaxPool2d(2)}
    layers = OrderedDict(**block(1, 1, 12), **block(2, 12, 24), **pool, **block(3, 24, 32), **head)
    model = nn.Sequential(layers)
    seen = marked(images, labels == CHEATED)[~unseen]
    train(model, seen, labels[~unseen], epochs=8)
    return model, images[unseen], labels[unseen]


def test_the_filters_of_the_mark_are_found_and_without_them_the_shortcut_is_gone(trained):
    model, clean, labels = trained
    half = torch.arange(len(clean)) % 2 == 0
    odd, masks = marked(clean, half), np.zeros((len(clean), 12, 12), bool)
    masks[half, :3, :3] = True
    table = fastconv.overlap(model, TensorDataset(odd, labels), {"mark": masks}, stage="act")
    guilty = table[table["layer"] == "conv2"].head(3)
    assert guilty["iou"].min() > 0.1 and guilty["inside"].min() > 0.6
    assert table[table["layer"] == "conv2"]["iou"].median() < 0.01

    filters = {"relu2": guilty["filter"].tolist()}
    with_mark = fastconv.ablate(model, TensorDataset(odd, labels), filters, together=True)
    row = with_mark[with_mark["class"] == CHEATED].iloc[0]
    assert row["precision"] < 0.4 and row["precision_low"] > 0.2  # marked images were called 7
    assert row["accuracy_low"] > 0.1
    without_mark = fastconv.ablate(model, TensorDataset(clean, labels), filters, together=True)
    assert without_mark["accuracy_change"].abs().max() < 0.03  # and nothing else is lost


def test_other_filters_do_not_remove_it(trained):
    model, clean, labels = trained
    half = torch.arange(len(clean)) % 2 == 0
    odd, masks = marked(clean, half), np.zeros((len(clean), 12, 12), bool)
    masks[half, :3, :3] = True
    data = TensorDataset(odd, labels)
    table = fastconv.overlap(model, data, {"mark": masks}, ["conv2"], stage="act")
    innocent = table[table["inside"] < 0.05]["filter"].tolist()[:3]
    row = fastconv.ablate(model, data, {"relu2": innocent}, together=True).iloc[CHEATED]
    assert row["precision_change"] < 0.1
