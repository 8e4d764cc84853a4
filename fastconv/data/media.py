"""Files of any format as samples: what data sets of pictures, volumes, sounds and videos share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from fastconv.data.formats import File, Format, ReadAs, Stored
from fastconv.data.preparation import Preparation
from fastconv.errors import DataError, InputError

Source = tuple[Format, File, int]  # a sample: how it is read, from where, which page of the file


class MediaDataset(Dataset):
    """Samples are float32 `[C, *spatial]`, with a label where there are classes.

    Args:
        size: of each spatial dimension, or one number for all; None leaves samples as they are.
        fit: how they come to that size: "cover" (default: pictures are resized, keeping their
            proportions, until they cover it, and the centre is cut out), "crop", "pad" or "resize";
            without a size, to that of the first sample.
        mean: one number, or one a channel: subtracted after the scaling to [0, 1].
        std: then divides.
        value_range: (low, high) of the stored values that become 0 and 1; default the range of an
            integer dtype.
        channels: of every sample; default 3 for pictures and videos, else as stored.
        as_stored: leave pixels as stored, not turned as their EXIF orientation says.
        frames: take so many evenly spaced frames of a video; default all.

    Raises:
        InputError: an option out of its range.
    """

    keys: list[str]
    labels: list[int] | None

    def __init__(
        self,
        *,
        size: int | Sequence[int] | None = None,
        fit: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        value_range: Sequence[float] | None = None,
        channels: int | None = None,
        as_stored: bool = False,
        frames: int | None = None,
    ):
        if frames is not None and frames < 1:
            raise InputError(f"frames must be at least 1, got {frames}")
        self._prepare = Preparation.create(
            range=value_range, size=size, fit=fit, channels=channels, mean=mean, std=std
        )
        self._how = ReadAs(not as_stored, value_range is None, frames)
        self._rate: float | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        format, file, page = self.source(index)
        try:
            stored = self._stored(format, file, page)
            if stored.rate not in (None, self._rate):
                raise DataError(
                    f"it has {stored.rate} samples a second, others have {self._rate}; "
                    "bring them to one rate"
                )
            x = self._prepare(stored, format.fitted)
        except DataError as error:
            raise DataError(f"{self.keys[index]}: {error}") from error
        return x if self.labels is None else (x, self.labels[index])

    def source(self, index: int) -> Source:
        """Where a sample comes from."""
        raise NotImplementedError

    def preparation(self) -> dict[str, Any]:
        """What is done to the files, as plain values: only what differs from the default."""
        how = {"as_stored": not self._how.upright, "frames": self._how.frames}
        return self._prepare.as_dict() | {k: v for k, v in how.items() if v}

    def _settle(self, sounds: Iterable[int]) -> None:
        """Take the rate of the first sound, and if need be the size of the first sample."""
        by_first = self._prepare.fit is not None and self._prepare.size is None
        for index in range(len(self)) if by_first else sounds:
            format, file, page = self.source(index)
            try:
                stored = self._stored(format, file, page)
            except Exception:  # noqa: BLE001 - libraries raise what they like; reading it will say
                continue
            self._rate = stored.rate
            if by_first:
                size = stored.values.shape[-format.fitted or 1 :]
                self._prepare = replace(self._prepare, size=size)
            return

    def _stored(self, format: Format, file: File, page: int) -> Stored:
        return format.module().read(file, page, self._how)
