"""Inputs changed along the gradient of the model's loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastconv.errors import InputError
from fastconv.perturb.perturbation import (
    Perturbation,
    Scale,
    drawn,
    per_channel,
    to_pixels,
    within_range,
)

Model = Callable[[Tensor], Tensor]


def fgsm(
    epsilon: float, *, against: str = "label", mean: Scale = 0.0, std: Scale = 1.0
) -> Perturbation:
    """Move every pixel by epsilon in the direction that raises the loss.

    Args:
        epsilon: in units of pixels of 0 ... 1; two levels of 8-bit pixels are 2/255.
        against: the class whose loss is raised: the "label", or the model's own "prediction".

    Source: Goodfellow et al. 2015, "Explaining and harnessing adversarial examples".
    """
    _check(epsilon, against)
    given = {"epsilon": epsilon, "against": against, "mean": mean, "std": std}
    return Perturbation("fgsm", _fgsm, given, needs_model=True)


def pgd(
    epsilon: float,
    *,
    steps: int = 10,
    step: float | None = None,
    against: str = "label",
    seed: int = 0,
    mean: Scale = 0.0,
    std: Scale = 1.0,
) -> Perturbation:
    """Raise the loss in several steps, never further than epsilon from the sample.

    Args:
        epsilon: as of `fgsm`.
        steps: how many, from a random start within epsilon of the sample.
        step: length of one; default 2.5 * epsilon / steps.

    Source: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks".
    """
    _check(epsilon, against)
    if steps < 1:
        raise InputError(f"pgd needs at least 1 step, got {steps}")
    step = 2.5 * epsilon / steps if step is None else step
    given = {"epsilon": epsilon, "steps": steps, "step": step, "against": against, "seed": seed}
    return Perturbation("pgd", _pgd, given | {"mean": mean, "std": std}, needs_model=True)


def _check(epsilon: float, against: str) -> None:
    if not epsilon > 0:
        raise InputError(f"epsilon must be above 0, got {epsilon}")
    if against not in ("label", "prediction"):
        raise InputError(f"against must be label or prediction, got {against!r}")


def _fgsm(
    batch: Tensor,
    samples: Tensor,
    *,
    epsilon: float,
    against: str,
    mean: Scale,
    std: Scale,
    model: Model,
    labels: Tensor | None,
) -> Tensor:
    classes = _classes(batch, against, model, labels)
    moved = batch + _direction(batch, model, classes) * (epsilon / per_channel(std, batch))
    return _within_pixels(moved, batch, mean, std)


def _pgd(
    batch: Tensor,
    samples: Tensor,
    *,
    epsilon: float,
    steps: int,
    step: float,
    against: str,
    seed: int,
    mean: Scale,
    std: Scale,
    model: Model,
    labels: Tensor | None,
) -> Tensor:
    classes = _classes(batch, against, model, labels)
    shape = tuple(batch.shape[1:])
    start = drawn(batch, samples, seed, lambda g: g.random(shape, np.float32) * 2 - 1)
    unit = 1 / per_channel(std, batch)
    moved = batch + epsilon * unit * start
    for _ in range(steps):
        moved = moved + step * unit * _direction(moved, model, classes)
        moved = torch.minimum(torch.maximum(moved, batch - epsilon * unit), batch + epsilon * unit)
        moved = _within_pixels(moved, batch, mean, std)
    return moved


def _within_pixels(moved: Tensor, batch: Tensor, mean: Scale, std: Scale) -> Tensor:
    """`moved` in the range of pixels; what lies in it keeps its bits."""
    pixels = to_pixels(batch, mean, std)
    inside = to_pixels(moved, mean, std)
    excess = within_range(inside, pixels) - inside  # 0 where nothing is clipped
    return moved + excess / per_channel(std, batch)


def _classes(batch: Tensor, against: str, model: Model, labels: Tensor | None) -> Tensor:
    """The class of every sample whose loss is raised: int64 [n]; of a multi-label model [n, K]."""
    with torch.no_grad():
        output = _logits(model(batch))
    count = max(2, output.shape[1])
    if labels is not None and labels.ndim == 2:  # 0, 1 and -1 of every class, missing
        return (output > 0).long() if against == "prediction" else labels.to(output.device)
    if against == "prediction":
        return output.argmax(1) if output.shape[1] > 1 else (output[:, 0] > 0).long()
    if labels is None:
        raise InputError(
            'the data set has no labels to attack; use against="prediction" (vectors of 0 and 1 '
            "are labels with outcomes=True)"
        )
    labels = labels.to(output.device).long()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise InputError(
            f"labels must be outputs of the model, 0 ... {count - 1}, got {labels.max()}"
        )
    return labels


def _logits(output: Tensor) -> Tensor:
    if not isinstance(output, Tensor):
        raise InputError(
            f"the model gives a {type(output).__name__}, no tensor of scores; name one (output=)"
        )
    output = output.reshape(-1, 1) if output.ndim == 1 else output
    if output.ndim != 2:
        raise InputError(
            f"the output must be class scores [n, K], got {list(output.shape)}; see output="
        )
    return output.float()


def _direction(batch: Tensor, model: Model, classes: Tensor) -> Tensor:
    """The sign of the loss's gradient with respect to the batch."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        x = batch.detach().clone().requires_grad_()
        output = _logits(model(x))
        if output.shape[1] == 1 or classes.ndim == 2:
            truth = classes.reshape(output.shape)
            known = truth >= 0
            loss = F.binary_cross_entropy_with_logits(
                output[known], truth[known].to(output.dtype), reduction="sum"
            )
        else:
            loss = F.cross_entropy(output, classes, reduction="sum")
        return torch.autograd.grad(loss, x)[0].sign()
