"""The training loop of the demos: the same network each time on the same machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def train(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    rate: float = 0.1,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Fit `model` with Nesterov momentum and a one-cycle learning rate; leaves it in eval mode."""
    steps = epochs * -(-len(inputs) // batch_size)
    optimizer = torch.optim.SGD(
        model.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=1e-3
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    model.train()
    with _one_thread():
        for _ in range(epochs):
            for chosen in torch.randperm(len(inputs)).split(batch_size):
                x = inputs[chosen] if augment is None else augment(inputs[chosen])
                optimizer.zero_grad()
                F.cross_entropy(model(x), labels[chosen]).backward()
                optimizer.step()
                schedule.step()
    model.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are then added in one order, however many cores there are: the same network."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of right answers."""
    with torch.inference_mode():
        answers = torch.cat([model(x).argmax(1) for x in inputs.split(256)])
    return (answers == labels).float().mean().item()
