"""Ways to call a model of which `entanglement` compares the runs: `extract(..., forward=...)`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def batch_moments(model: nn.Module, batch: Any) -> Any:
    """Call a model whose batch norms take the moments of the batch; they learn nothing from it."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with _training(norms):
        for norm in norms:
            norm.momentum = 0.0
        try:
            return model(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


@dataclass(frozen=True)
class DropoutPass:
    """One pass of Monte-Carlo dropout: calls a model with its dropout switched on.

    Every batch of a pass draws the same random numbers, so that a run can be resumed and verified.

    Attributes:
        seed: of the pass.

    Source: Gal and Ghahramani 2016, "Dropout as a Bayesian approximation".
    """

    seed: int

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        dropouts = [module for module in model.modules() if isinstance(module, _DropoutNd)]
        with _training(dropouts), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return model(batch)


@contextlib.contextmanager
def _training(modules: list[Any]) -> Iterator[None]:
    before = [module.training for module in modules]
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode
