"""Photographs bundled with scikit-image and scikit-learn: which one does a crop come from?"""

from __future__ import annotations

import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from skimage import data as skimage_data
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.utils.data import Dataset

from fastconv.demo.report import measure_and_draw
from fastconv.demo.training import accuracy, train
from fastconv.perturb import blur, noise, rotate

SIZE = 64  # of a crop, in pixels
SEEN = 0.8  # share of each photograph's width that the training sees
_SHRUNK = {"retina": 2}  # its details are larger than a crop
_NAMES = (
    *("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field"),
    *("immunohistochemistry", "retina", "rocket", "stereo_motorcycle"),
)


class Crops(Dataset):
    """Crops uint8 [3, 64, 64] of photographs, each with the number of its photograph.

    Args:
        photos: uint8 [3, H, W] by name.
        part: from and to which share of the width.
        count: about so many crops of each photograph, which overlap; default: side by side.

    Attributes:
        classes: names of the photographs.
        keys: "astronaut/128,64": photograph, and first row and column of the crop.
    """

    def __init__(
        self,
        photos: dict[str, Tensor],
        part: tuple[float, float] = (0.0, 1.0),
        count: int | None = None,
    ):
        self.photos = list(photos.values())
        self.places = [
            (number, *corner)
            for number, photo in enumerate(self.photos)
            for corner in _corners(photo, part, count)
        ]
        self.classes = list(photos)
        self.keys = [f"{self.classes[number]}/{y},{x}" for number, y, x in self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        number, y, x = self.places[index]
        return self.photos[number][:, y : y + SIZE, x : x + SIZE], number

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All crops float32 [N, 3, 64, 64] and their photographs [N]."""
        crops = torch.stack([self[i][0] for i in range(len(self))])
        return crops.float(), torch.tensor([number for number, _, _ in self.places])


def show(out: Path) -> bool:
    """Train, extract, verify, show; writes photos.h5, photos.png and photos.html.

    Returns:
        Whether every check holds.
    """
    photos = load()
    started = time.monotonic()
    model, right = trained(photos)
    print(
        f"trained in {time.monotonic() - started:.0f} s on the left {SEEN:.0%} of {len(photos)} "
        f"photographs: {right:.0%} of crops from the rest are told right"
    )
    crops = Crops(photos)
    return measure_and_draw(
        model,
        crops,
        out / "photos.h5",
        picture=out / "photos.png",
        page=out / "photos.html",
        what="photographs",
        conditions={
            "rot15": rotate(15),
            "noise0.1": noise(0.1, std=1 / 255),
            "blur2": blur(2),
        },
    )


def load() -> dict[str, Tensor]:
    """Photographs uint8 [3, H, W] by name; nothing is downloaded."""
    photos = {}
    for name in _NAMES:
        photo = getattr(skimage_data, name)()
        photos[name] = photo[0] if isinstance(photo, tuple) else photo  # left eye of a stereo pair
    bundled = load_sample_images()
    photos |= {Path(f).stem: i for f, i in zip(bundled.filenames, bundled.images, strict=True)}
    return {name: _as_tensor(photo, _SHRUNK.get(name, 1)) for name, photo in photos.items()}


class PhotoNet(nn.Sequential):
    """Four convolutions on values of 0 ... 255; the first has large filters, to be looked at.

    Without padding: no crop's border can pass for an edge in the photograph.
    """

    def __init__(self, classes: int):
        super().__init__(
            OrderedDict(
                scale=Scale(),
                **_block(1, 3, 24, kernel=7, stride=2),
                pool1=nn.MaxPool2d(2),
                **_block(2, 24, 48),
                pool2=nn.MaxPool2d(2),
                **_block(3, 48, 64),
                **_block(4, 64, 64),
                average=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                drop=nn.Dropout(0.2),
                classify=nn.Linear(64, classes),
            )
        )


class Scale(nn.Module):
    """Pixel values 0 ... 255 to about -1 ... 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 127.5 - 1


def trained(photos: dict[str, Tensor]) -> tuple[nn.Module, float]:
    """The network, and its accuracy on the right part of each photograph, which it has not seen."""
    torch.manual_seed(0)
    model = PhotoNet(len(photos))
    with torch.no_grad():  # what shows in a filter is then learned, not left from its random start
        next(model.parameters()).mul_(0.1)
    seen, unseen = Crops(photos, (0, SEEN), count=120), Crops(photos, (SEEN, 1), count=30)
    train(model, *seen.tensors(), epochs=14, augment=_augment)
    return model, accuracy(model, *unseen.tensors())


def _augment(x: Tensor) -> Tensor:
    """Flips, paler colours, another brightness and tint: colour alone must not tell the photo."""
    n = len(x)
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x, x.flip(3))
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x, x.flip(2))
    x = torch.lerp(x, x.mean(1, keepdim=True), torch.rand(n, 1, 1, 1))
    gain = 0.6 + 0.8 * torch.rand(n, 1, 1, 1)
    return (x * gain + 60 * (torch.rand(n, 3, 1, 1) - 0.5)).clamp(0, 255)


def _corners(photo: Tensor, part: tuple[float, float], count: int | None) -> list[tuple[int, int]]:
    """First rows and columns of crops over a part of a photograph, as even as can be."""
    _, height, width = photo.shape
    left, right = round(part[0] * width), round(part[1] * width)
    high, wide = height - SIZE, right - left - SIZE
    if count is None:
        rows, columns = height // SIZE, (right - left) // SIZE
    else:
        rows = max(1, round((count * high / max(wide, 1)) ** 0.5))
        columns = max(1, round(count / rows))
    ys = np.linspace(0, high, rows).round().astype(int)
    xs = left + np.linspace(0, wide, columns).round().astype(int)
    return [(int(y), int(x)) for y in ys for x in xs]


def _as_tensor(photo: np.ndarray, shrink: int) -> Tensor:
    grey = photo.ndim == 2
    pixels = torch.from_numpy(np.array(np.stack([photo] * 3, -1) if grey else photo[..., :3]))
    pixels = pixels.permute(2, 0, 1)
    if shrink > 1:
        pixels = F.avg_pool2d(pixels[None].float(), shrink)[0].round().to(torch.uint8)
    return pixels.contiguous()


def _block(
    number: int, channels: int, filters: int, kernel: int = 3, stride: int = 1
) -> dict[str, nn.Module]:
    convolution = nn.Conv2d(channels, filters, kernel, stride)
    return {
        f"conv{number}": convolution,
        f"norm{number}": nn.BatchNorm2d(filters),
        f"relu{number}": nn.ReLU(inplace=True),
    }
