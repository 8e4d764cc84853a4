"""From what a file holds to what a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.data.fit import FITS, fit
from fastconv.data.formats import Stored
from fastconv.errors import DataError, InputError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's


@dataclass(frozen=True)
class Preparation:
    """Scaling, size, channels and normalisation, in this order.

    Attributes:
        range: (low, high): these values of the file become 0 and 1, those outside are cut; None
            takes the whole range of an integer dtype, and leaves other numbers as they are.
        size: of each spatial dimension; one number is for all of them.
        fit: how samples come to that size: "cover", "crop", "pad" or "resize" (see `fit`).
        channels: 1 mixes colours (BT.601) or the channels of a sound, others repeat a grey one;
            None is 3 for pictures and videos, and as stored for volumes and sounds.
        mean, std: one number, or one a channel: subtracted, then divides.
    """

    range: tuple[float, float] | None = None
    size: tuple[int, ...] | None = None
    fit: str | None = None
    channels: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def create(
        cls,
        *,
        range: Sequence[float] | None,
        size: int | Sequence[int] | None,
        fit: str | None,
        channels: int | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> Preparation:
        """Check the options.

        Raises:
            InputError: one that is out of its range; the message says which and what would do.
        """
        sizes = None if size is None else ((size,) if isinstance(size, int) else tuple(size))
        if sizes is not None and (not 1 <= len(sizes) <= 3 or min(sizes) < 1):
            raise InputError(f"size must be 1 to 3 numbers of at least 1, got {size}")
        if fit is not None and fit not in FITS:
            raise InputError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
        if fit is None and sizes is not None:
            fit = "cover"
        if range is not None and (len(range) != 2 or not range[0] < range[1]):
            raise InputError(f"range must be LOW,HIGH with LOW < HIGH, got {tuple(range)}")
        if channels is not None and channels < 1:
            raise InputError(f"channels must be at least 1, got {channels}")
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) not in (1, channels or 3):
                raise InputError(f"{name} must be 1 or {channels or 3} numbers, got {len(values)}")
        if std is not None and 0 in std:
            raise InputError("std must not be 0")
        return cls(
            None if range is None else (float(range[0]), float(range[1])),
            sizes,
            fit,
            channels,
            (0.0,) if mean is None else tuple(mean),
            (1.0,) if std is None else tuple(std),
        )

    def __call__(self, stored: Stored, fitted: int) -> Tensor:
        """A float32 tensor [C, *spatial]; `fitted` dimensions, the last ones, come to the size."""
        values = stored.values
        pictures, fitted = fitted == 2, fitted or values.ndim - 1
        if self.fit is not None and self.size is not None:
            low = stored.low if self.range is None else self.range[0]
            values = fit(values, self._size(fitted), self.fit, padding=low)
        wanted = 3 if self.channels is None and pictures else self.channels
        x = _with_channels(self._scaled(values, stored), wanted)
        if self.mean == (0.0,) and self.std == (1.0,):
            return x
        mean, std = (_per_channel(v, x) for v in (self.mean, self.std))
        return (x - mean) / std

    def as_dict(self) -> dict[str, Any]:
        """Plain values, only those that differ from the default."""
        default = asdict(Preparation())
        changed = {k: v for k, v in asdict(self).items() if v != default[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}

    def _size(self, fitted: int) -> tuple[int, ...]:
        assert self.size is not None
        if fitted == 0 or len(self.size) not in (1, fitted):
            numbers = f"1 or {fitted} numbers" if fitted else "left out"
            raise InputError(f"size must be {numbers} here, got {list(self.size)}")
        return self.size * (fitted // len(self.size))

    def _scaled(self, values: np.ndarray, stored: Stored) -> Tensor:
        low, high = (stored.low, stored.high) if self.range is None else self.range
        wide = values.dtype.itemsize > 2 and (low, high) != (0.0, 1.0)
        x = torch.from_numpy(values.astype(np.float64 if wide else np.float32))
        if (low, high) != (0.0, 1.0):
            x = ((x - low if low else x) / (high - low)).float()
        if self.range is None:
            return x
        x = x.clamp(0, 1)
        return 1 - x if stored.low > stored.high else x


def _with_channels(x: Tensor, wanted: int | None) -> Tensor:
    given = len(x)
    if wanted is None or wanted == given:
        return x
    if given == 1:
        return x.expand(wanted, *x.shape[1:]).contiguous()
    if wanted != 1:
        raise DataError(f"it has {given} channels, not {wanted}: give channels={given}")
    if given == 3:
        return (x * torch.tensor(_LUMA).reshape(3, *[1] * (x.ndim - 1))).sum(0, keepdim=True)
    return x.mean(0, keepdim=True)


def _per_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    if len(values) not in (1, len(x)):
        raise DataError(f"mean and std are {len(values)} numbers for {len(x)} channels")
    return torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * (x.ndim - 1))
