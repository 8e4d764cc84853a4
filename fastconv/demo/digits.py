"""Handwritten digits: a small CNN with batch norm and dropout, over scikit-learn's 1,797 images."""

from __future__ import annotations

import time
from collections import OrderedDict
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fastconv.demo.report import measure_and_draw
from fastconv.demo.training import accuracy, train
from fastconv.perturb import noise, rotate, translate


def show(out: Path) -> bool:
    """Train, extract, verify, show; writes digits.h5, overview.png and report.html.

    Returns:
        Whether every check holds.
    """
    inputs, labels = load()
    started = time.monotonic()
    model, right = trained(inputs, labels)
    print(f"trained in {time.monotonic() - started:.0f} s: {right:.1%} of unseen digits are right")
    data = TensorDataset(inputs, labels)
    return measure_and_draw(
        model,
        data,
        out / "digits.h5",
        picture=out / "overview.png",
        page=out / "report.html",
        what="handwritten digits",
        conditions={"rot15": rotate(15), "noise0.1": noise(0.1), "shift1": translate(1, 0)},
    )


def load() -> tuple[Tensor, Tensor]:
    """Images [1797, 1, 8, 8] in [0, 1] and labels [1797]."""
    digits = load_digits()
    inputs = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    return inputs, torch.tensor(digits.target)


def build() -> nn.Module:
    """Three convolutions; the third one sees the whole digit."""
    return nn.Sequential(
        OrderedDict(
            **_block(1, 1, 16),
            **_block(2, 16, 32),
            pool=nn.MaxPool2d(2),
            drop_maps=nn.Dropout2d(0.1),
            **_block(3, 32, 64),
            average=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            drop=nn.Dropout(0.2),
            classify=nn.Linear(64, 10),
        )
    )


def trained(inputs: Tensor, labels: Tensor) -> tuple[nn.Module, float]:
    """The network, and its accuracy on the fifth of the images that it has not seen."""
    torch.manual_seed(0)
    model = build()
    unseen = torch.arange(len(inputs)) % 5 == 4
    train(model, inputs[~unseen], labels[~unseen], epochs=15)
    return model, accuracy(model, inputs[unseen], labels[unseen])


def _block(number: int, channels: int, filters: int) -> dict[str, nn.Module]:
    return {
        f"conv{number}": nn.Conv2d(channels, filters, 3, padding=1),
        f"norm{number}": nn.BatchNorm2d(filters),
        f"relu{number}": nn.ReLU(inplace=True),
    }
