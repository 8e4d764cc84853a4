"""Boxes of receptive fields against the gradient, and against impulses."""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fastconv.capture import plan_capture
from fastconv.geometry import input_boxes


class Fn(nn.Module):
    """A named place for a function, with modules of its own."""

    def __init__(self, function: Callable, **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def positive(model: nn.Module) -> nn.Module:
    """Positive weights everywhere, so that no two paths cancel."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data = torch.rand(p.shape, generator=generator) + 0.1
    return model.double().eval()


def support_boxes(output: Tensor, x: Tensor) -> dict[tuple[int, ...], np.ndarray | None]:
    """Bounding box [D, 2] of the non-zero gradient for every position of the output."""
    found = {}
    for position in itertools.product(*map(range, output.shape[2:])):
        value = output[(slice(None), slice(None), *position)].sum()
        (grad,) = torch.autograd.grad(value, x, retain_graph=True)
        hit = grad.abs().sum((0, 1)).nonzero()
        if len(hit):
            found[position] = torch.stack([hit.min(0).values, hit.max(0).values + 1], 1).numpy()
        else:
            found[position] = None
    return found


def check(
    model: nn.Module, size: tuple[int, ...], status: dict[str, str], channels: int = 2
) -> None:
    """Every output named in `status` has that status, and boxes that agree with the gradient."""
    model = positive(model)
    outputs: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda m, a, o, name=name: outputs.update({name: o.clone()})
        )
        for name in status
    ]
    x = torch.rand(2, channels, *size, dtype=torch.float64, requires_grad=True)
    model(x)
    for handle in handles:
        handle.remove()
    targets = plan_capture(model, x.detach(), layers=list(status))
    assert {t.info.name: t.info.status for t in targets} == status
    for target in targets:
        info = target.info
        output = outputs[info.name]
        assert info.size == tuple(output.shape[2:])
        for position, support in support_boxes(output, x).items():
            box = input_boxes(info.fields, np.array(position))
            clipped = np.stack([box[:, 0].clip(0), np.minimum(box[:, 1], size)], 1)
            context = f"{info.name} at {position}: box {box.tolist()}, support {support}"
            if info.status == "exact":
                assert support is not None and (clipped == support).all(), context
            elif support is not None:
                assert (clipped[:, 0] <= support[:, 0]).all(), context
                assert (clipped[:, 1] >= support[:, 1]).all(), context


def check_impulses(model: nn.Module, size: tuple[int, ...]) -> bool:
    """Boxes of the last layer against the response to a unit impulse at every pixel."""
    pixels = int(np.prod(size))
    impulses = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *size)
    try:
        with torch.no_grad():
            seen = (model(impulses) != 0).any(1)  # [pixels, *positions]
    except RuntimeError:  # nothing is left of the signal
        return False
    if not 0 < seen.numel() < 100_000:
        return False
    (target,) = plan_capture(model, impulses[:1], str(len(model) - 1))
    grid = np.stack(np.indices(seen.shape[1:]), -1)
    boxes = input_boxes(target.info.fields, grid)
    boxes[..., 0], boxes[..., 1] = boxes[..., 0].clip(0), np.minimum(boxes[..., 1], size)
    for position in np.ndindex(*seen.shape[1:]):
        hits = seen[(slice(None), *position)].view(size).nonzero().numpy()
        start, stop = boxes[position].T
        context = (model, target.info.status, position, boxes[position], hits)
        if target.info.status == "exact":
            assert len(hits), context
            assert (start == hits.min(0)).all() and (stop == hits.max(0) + 1).all(), context
        elif len(hits):
            assert (start <= hits.min(0)).all() and (hits.max(0) < stop).all(), context
    return True
