"""The effective receptive field: which input pixels a central position depends on, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fastconv.capture import CaptureTarget, Forward, Network
from fastconv.capture.batch import first_tensor, map_tensors, single_tensor
from fastconv.errors import InputError
from fastconv.insight.passes import modules_only, passing

FLOOR = 1 - 0.9545  # of the largest gradient: two standard deviations of a Gaussian


def effective_field(
    model: nn.Module,
    data: Any,
    layers: Any = None,
    *,
    samples: int = 64,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    forward: Forward | None = None,
) -> pd.DataFrame:
    """Measure how much of the theoretical receptive field a layer really looks at.

    The root mean square, over samples and filters, of the gradient of the central output position
    with respect to every input pixel; filters enter with random signs, other ones for every sample
    (one seed), so that they do not cancel.

    Args:
        model, data: as for `fastconv.extract`; the model must let gradients through.
        layers: as for `fastconv.extract`; default every convolution. Their own outputs are taken.
        samples: how many, evenly spaced over the data set.
        batch_size: samples at a time.
        device, forward: as for `fastconv.extract`.

    Returns:
        One row a layer whose output has spatial dimensions:

        - layer.
        - size: D-th root of the number of pixels whose gradient is above 4.55 % of the largest.
        - sigma: standard deviation of the position weighted by the gradient, in pixels; the
          geometric mean over the D dimensions of the input.
        - theoretical: side of the theoretical field (geometric mean), at most the input.
        - share: size over theoretical.

    Raises:
        InputError: no gradient reaches the input, or no layer has positions.

    Memory:
        The activations of a batch with their gradients, as in training.

    Source: Luo et al., Understanding the Effective Receptive Field in Deep Convolutional Neural
        Networks, NeurIPS 2016.
    """
    if samples < 1:
        raise InputError(f"samples must be 1 or more, got {samples}")
    options: Any = {"batch_size": batch_size, "device": device, "forward": forward}
    with passing(model, data, layers, **options) as reading:
        targets = [t for t in reading.targets if t.info.size]
        if not targets:
            raise InputError("none of the layers has spatial dimensions; name convolutions")
        modules_only(targets)
        source = reading.source
        chosen = sorted({round(i) for i in np.linspace(0, len(source) - 1, samples)})
        signs = _signs(targets, len(chosen))
        squares = [np.zeros(source.sample_shape[1:]) for _ in targets]
        done = 0
        for _, x, _ in reading.batches(chosen):
            count = len(first_tensor(x))
            own = [sign[done : done + count].to(first_tensor(x)) for sign in signs]
            done += count
            found = _gradients(reading.network, targets, own, x)
            for total, gradient in zip(squares, found, strict=True):
                total += gradient.double().square().sum((0, 1)).cpu().numpy()
    rows = [_row(t, np.sqrt(square)) for t, square in zip(targets, squares, strict=True)]
    return pd.DataFrame(rows)


def _signs(targets: Sequence[CaptureTarget], count: int) -> list[Tensor]:
    """[count, C] of -1 and 1 for each layer."""
    random = torch.Generator().manual_seed(0)
    draws = [torch.randint(0, 2, (count, t.info.channels), generator=random) for t in targets]
    return [2.0 * draw - 1 for draw in draws]


class _Done(BaseException):
    """Ends a forward of which nothing more is wanted; no `except Exception` can stop it."""


def _gradients(
    network: Network, targets: Sequence[CaptureTarget], signs: Sequence[Tensor], inputs: Any
) -> list[Tensor]:
    """The gradient [n, C_in, *spatial] of the signed sum of each layer's central position."""
    found: dict[int, Tensor] = {}
    first = first_tensor(inputs)
    leaf = first.detach().clone().requires_grad_()

    def leave(module: nn.Module, _: tuple, output: Any) -> None:
        for i, target in enumerate(targets):
            if target.module is module and target.index == counts[module]:
                tensor = single_tensor(output)
                assert tensor is not None  # as in the probe forward
                central = tensor.flatten(2)[:, :, _central(target.info.size)]  # [n, C]
                found[i] = (central * signs[i]).sum()
        counts[module] += 1
        if len(found) == len(targets):
            raise _Done

    counts = {target.module: 0 for target in targets}
    handles = [module.register_forward_hook(leave) for module in counts]
    try:
        with network.running(), torch.enable_grad():
            # the model may write to its inputs
            network.call(map_tensors(inputs, lambda t: leaf * 1 if t is first else t.clone()))
    except _Done:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return [_gradient(found[i], leaf, targets[i]) for i in range(len(targets))]


def _central(size: tuple[int, ...]) -> int:
    """The flat index of the central position."""
    return int(np.ravel_multi_index([n // 2 for n in size], size))


def _gradient(value: Tensor, leaf: Tensor, target: CaptureTarget) -> Tensor:
    remedy = "the model must compute it with differentiable operations, and not under no_grad"
    if not value.requires_grad:
        raise InputError(f"no gradient of {target.info.name} reaches the input; {remedy}")
    (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise InputError(f"no gradient of {target.info.name} reaches the input; {remedy}")
    return gradient


def _row(target: CaptureTarget, gradient: np.ndarray) -> dict[str, Any]:
    """Figures of one field [*spatial]; zeros where no sample has a gradient."""
    rank = gradient.ndim
    sides = [min(f.size, n) for f, n in zip(target.info.fields, gradient.shape, strict=True)]
    theoretical = round(float(np.prod(sides) ** (1 / rank)), 9)
    size = round(float((gradient > FLOOR * gradient.max()).sum() ** (1 / rank)), 9)
    return {
        "layer": target.info.name,
        "size": size,
        "sigma": _spread(gradient),
        "theoretical": theoretical,
        "share": size / theoretical,
    }


def _spread(gradient: np.ndarray) -> float:
    total = gradient.sum()
    if total == 0:
        return 0.0
    spreads = []
    for axis in range(gradient.ndim):
        along = gradient.sum(tuple(i for i in range(gradient.ndim) if i != axis)) / total
        place = np.arange(len(along))
        centre = along @ place
        spreads.append(np.sqrt(max(0.0, along @ (place - centre) ** 2)))
    return float(np.prod(spreads) ** (1 / gradient.ndim))
