"""Small networks on [N, 3, 20, 20] that do what networks in use do, and tools trip over."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

GRIDS: dict[int, Tensor] = {}


def _conv(c_in: int = 3, c_out: int = 4, **options: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, **options)


class VaryingWidth(nn.Module):
    """The width of the last convolution depends on the data."""

    def __init__(self):
        super().__init__()
        self.first, self.last = _conv(), _conv(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        width = 12 + int(x[0, 0, 0, 0] > 0.5) * 4
        return self.last(self.first(x)[..., :width])


class CachesOnSelf(nn.Module):
    """Keeps a tensor that it makes in its first forward."""

    def __init__(self):
        super().__init__()
        self.conv, self.ramp = _conv(), None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.ramp is None:
            self.ramp = torch.linspace(0, 1, y.shape[-1])
        return (y * self.ramp).sin()


class CachesElsewhere(nn.Module):
    """Keeps a tensor in a dict that no module owns."""

    def __init__(self):
        super().__init__()
        self.conv = _conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        grid = GRIDS.setdefault(y.shape[-1], torch.linspace(0, 1, y.shape[-1]))
        return (y * grid).sin()


class Counts(nn.Module):
    """Counts its calls in a buffer, replaces another one, and lets the count matter."""

    def __init__(self):
        super().__init__()
        self.conv = _conv()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("highest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.highest = torch.maximum(self.highest, x.max())
        return self.conv(x * (1 + 0.1 * self.calls) + self.highest)


class SkipsOnSelf(nn.Module):
    """Keeps its skip connections in a list, which must be empty when it starts."""

    def __init__(self):
        super().__init__()
        self.down, self.up = (
            nn.ModuleList([_conv(), _conv(4, 4)]),
            nn.ModuleList([_conv(4), _conv(4)]),
        )
        self.skips: list[Tensor] = []
        self.depth = 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.skips and self.depth == 0, "the last forward did not end"
        for layer in self.down:
            x = layer(x)
            self.skips.append(x)
            self.depth += 1
        for layer in self.up:
            x = layer(x + self.skips.pop())
            self.depth -= 1
        return x


class DrawsInVain(nn.Module):
    """Draws a random number that changes nothing in eval mode."""

    def __init__(self):
        super().__init__()
        self.conv = _conv()

    def forward(self, x: Tensor) -> Tensor:
        drop = torch.rand(()) < 0.5
        return self.conv(x) * (0.5 if drop and self.training else 1.0)


class AlwaysDrops(nn.Module):
    """A functional dropout that eval mode does not switch off."""

    def __init__(self):
        super().__init__()
        self.first, self.last = _conv(), _conv(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(self.first(x)))


class Squeezes(nn.Module):
    """Drops every dimension of size one, which a batch of one sample is."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = _conv(), nn.Conv1d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(x).mean(3, keepdim=True).squeeze())


class Functional(nn.Module):
    """A convolution by function, with a weight of its own, inside a residual block."""

    def __init__(self):
        super().__init__()
        self.conv, self.weight = _conv(), nn.Parameter(torch.randn(4, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + F.conv2d(F.relu(y), self.weight, padding=1)


def batch_statistics() -> nn.Module:
    return nn.Sequential(_conv(), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), _conv(4))


def shared() -> nn.Module:
    conv = _conv(3, 3)
    return nn.Sequential(conv, nn.ReLU(), conv, nn.BatchNorm2d(3))


def scripted() -> nn.Module:
    inner = torch.jit.script(nn.Sequential(_conv(4), nn.ReLU(inplace=True)))
    return nn.Sequential(_conv(), inner, _conv(4))


def spectral() -> nn.Module:
    return nn.Sequential(
        spectral_norm(_conv()), nn.BatchNorm2d(4), nn.ReLU(), spectral_norm(_conv(4))
    )


def hooked() -> nn.Module:
    """A convolution whose output a hook of the user changes."""
    model = nn.Sequential(_conv(), nn.BatchNorm2d(4), nn.ReLU(), _conv(4))
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    return model


USABLE = {
    "caches on self": CachesOnSelf,
    "caches elsewhere": CachesElsewhere,
    "spectral norm": spectral,
    "moving buffers": Counts,
    "skips on self": SkipsOnSelf,
    "draws in vain": DrawsInVain,
    "squeeze": Squeezes,
    "batch statistics": batch_statistics,
    "bare convolution": _conv,
    "shared module": shared,
    "scripted part": scripted,
    "functional convolution": Functional,
    "hooked convolution": hooked,
}
