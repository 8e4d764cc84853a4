"""Small networks and data that several tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A convolution used twice, batch norm, an in-place ReLU and a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.bn(self.conv(x)))) + x)


def network(seed: int = 0) -> nn.Module:
    """Four convolutions (one called twice) on [N, 3, 20, 20], with dropout, in training mode."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        Residual(8),
        nn.Dropout(0.5),
        nn.Conv2d(8, 12, 3, dilation=2, groups=4),
        nn.GELU(),
        nn.ConvTranspose2d(12, 5, 2, stride=2),
        nn.Flatten(),
        nn.LazyLinear(4),
    )
    model(images(2))
    return with_moments(model)


def with_moments(model: nn.Module) -> nn.Module:
    """The model with random moments in its batch norms, so that they change something."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return model


def images(count: int, seed: int = 1) -> Tensor:
    """[N, 3, 20, 20] in [0, 1]."""
    return torch.rand(count, 3, 20, 20, generator=torch.Generator().manual_seed(seed))


def datasets(path) -> dict[str, object]:
    """Every dataset of a file with its bytes, to compare files with."""
    import h5py

    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            value = item[()]
            found[name] = (
                value if isinstance(value, bytes) else (value.dtype, value.shape, value.tobytes())
            )

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found
