"""The object that every perturbation is, and what they share: units, noise, a description."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.errors import InputError

IN_CACHE = 2**22  # bytes of samples that are changed together
Scale = float | Sequence[float]  # one for all channels, or one a channel


@dataclass(frozen=True)
class Perturbation:
    """A change of a batch that depends on nothing but the samples and the parameters.

    Attributes:
        name: of the change.
        function: called as `function(batch, samples, **parameters)`, in float32; it must not write
            to the batch.
        parameters: what the result depends on, beside the sample.
        needs_model: it is called with `model` (input to output) and `labels` (int64 [n] or None).
    """

    name: str
    function: Callable[..., Tensor]
    parameters: dict[str, Any] = field(default_factory=dict)
    needs_model: bool = False

    def __call__(self, batch: Tensor, samples: Tensor, **given: Any) -> Tensor:
        """Change a batch [n, C, *spatial] of the samples int64 [n].

        Raises:
            InputError: the batch has another rank or number of channels than the change needs, or
                would have another shape.
        """
        if not batch.is_floating_point():
            raise InputError(f"{self.name} changes floating-point batches, got {batch.dtype}")
        if len(samples) != len(batch):
            raise InputError(f"{self.name}: {len(samples)} indices for {len(batch)} samples")
        samples, changed = torch.as_tensor(samples), torch.empty_like(batch)
        at_once = max(1, len(batch))
        if batch.device.type == "cpu" and not self.needs_model:
            at_once = max(1, IN_CACHE // max(1, 4 * batch[:1].numel()))
        for start in range(0, len(batch), at_once):
            some = slice(start, start + at_once)
            part = batch[some].float()
            found = self.function(part, samples[some], **self.parameters, **given)
            if found.shape != part.shape:
                raise InputError(
                    f"{self.name} makes {list(found.shape)} of {list(part.shape)}; shapes must stay"
                )
            changed[some] = found
        return changed

    def describe(self) -> dict[str, Any]:
        """Name and parameters as plain values; arrays by their shape and hash."""
        return {"name": self.name} | {k: plain(v) for k, v in self.parameters.items()}


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        contents = np.ascontiguousarray(value)
        sha = hashlib.sha256(contents.tobytes()).hexdigest()
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": sha}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if isinstance(value, int | float | str | bool | None) else repr(value)


def generators(samples: Tensor, seed: int) -> list[np.random.Generator]:
    """One counter-based generator per sample, keyed by the seed and the sample's index."""
    keys = [[seed % 2**64, int(i) % 2**64] for i in samples]
    return [np.random.Generator(np.random.Philox(key=np.array(k, np.uint64))) for k in keys]


def drawn(
    batch: Tensor, samples: Tensor, seed: int, draw: Callable[[np.random.Generator], np.ndarray]
) -> Tensor:
    """Float32 numbers in the shape and layout of a batch; `draw` gives [C, *spatial] of a sample.

    Samples are drawn in threads, each by a generator of its own.
    """
    numbers = torch.empty_like(batch, dtype=torch.float32, device="cpu")
    rows = numbers.numpy()

    def fill(row: int, generator: np.random.Generator) -> None:
        rows[row] = draw(generator)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(fill, range(len(rows)), generators(samples, seed)))
    return numbers.to(batch.device)


def per_channel(value: Scale, batch: Tensor) -> Tensor:
    """A number, or one a channel, so that it broadcasts over a batch."""
    given = torch.as_tensor(value, dtype=torch.float32, device=batch.device).flatten()
    if len(given) not in (1, batch.shape[1]):
        raise InputError(f"mean and std need 1 or {batch.shape[1]} values, got {len(given)}")
    return given.reshape(-1, *[1] * (batch.ndim - 2))


def to_pixels(batch: Tensor, mean: Scale, std: Scale) -> Tensor:
    if (mean, std) == (0, 1):
        return batch
    return batch * per_channel(std, batch) + per_channel(mean, batch)


def from_pixels(pixels: Tensor, mean: Scale, std: Scale) -> Tensor:
    if (mean, std) == (0, 1):
        return pixels
    return (pixels - per_channel(mean, pixels)) / per_channel(std, pixels)


def within_range(changed: Tensor, pixels: Tensor) -> Tensor:
    """Clip to [0, 1], or to the range of the unchanged sample where that is wider."""
    low, high = value_range(pixels)
    return torch.clamp(changed, low, high)


def value_range(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """0 and 1, or the extrema of a sample beyond them, [n, 1, ...] each."""
    inner = tuple(range(1, pixels.ndim))
    low, high = pixels.amin(inner, keepdim=True), pixels.amax(inner, keepdim=True)
    return low.clamp(max=0), high.clamp(min=1)


def require_rank(batch: Tensor, name: str, ranks: tuple[int, ...]) -> None:
    rank = batch.ndim - 2
    if rank not in ranks:
        known = " or ".join(f"{r}-D" for r in ranks)
        raise InputError(f"{name} is for {known} inputs, got {rank}-D [{list(batch.shape)}]")


def frames(batch: Tensor, name: str) -> Tensor:
    """The pictures [m, C, H, W] of images [n, C, H, W] or clips [n, C, T, H, W]."""
    require_rank(batch, name, (2, 3))
    return batch if batch.ndim == 4 else batch.transpose(1, 2).flatten(0, 1)


def unframed(pictures: Tensor, batch: Tensor) -> Tensor:
    """Undo `frames`."""
    if batch.ndim == 4:
        return pictures
    return pictures.unflatten(0, (batch.shape[0], batch.shape[2])).transpose(1, 2)
