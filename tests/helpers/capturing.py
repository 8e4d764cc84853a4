"""Captured values in plain torch."""

import torch.nn.functional as F
from torch import Tensor, nn

from fastconv.capture import capture_forward, plan_capture


def captured(model: nn.Module, x: Tensor, layers=None, stage="conv") -> dict[str, Tensor]:
    """Values of every target by name: scale, shift and activation applied in plain torch."""
    targets = plan_capture(model, x[:1], layers, stage)
    values = {}

    def keep(i: int, tensor: Tensor) -> None:
        target = targets[i]
        shape = (1, -1) + (1,) * (tensor.ndim - 2)
        value = tensor.clone()
        if target.scale is not None:
            value = value * target.scale.view(shape) + target.shift.view(shape)
        if target.activation:
            value = getattr(F, target.activation)(value)
        values[target.info.name] = value

    capture_forward(model, targets, x, keep)
    return values
