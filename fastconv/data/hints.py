"""What may be wrong with samples that a model cannot take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.conv import _ConvNd

from fastconv.data.samples import Samples
from fastconv.errors import InputError

_PERMUTED = {1: "x.permute(1, 0)", 2: "x.permute(2, 0, 1)", 3: "x.permute(3, 0, 1, 2)"}


@contextmanager
def hinted(samples: Samples, model: nn.Module) -> Iterator[None]:
    """Add a remedy to the error of a first forward, where one is known."""
    try:
        yield
    except (InputError, RuntimeError) as error:
        remedy = hint(samples, model)
        if remedy is None:
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"the model cannot take these samples: {remedy} ({reason})") from error


def hint(samples: Samples, model: nn.Module) -> str | None:
    """A remedy, where the first convolution of the model says what samples should look like.

    To be added to the error of a forward that fails; None where nothing is known.
    """
    conv = next((m for m in model.modules() if isinstance(m, _ConvNd)), None)
    if conv is None or conv.in_channels == 0:  # of a lazy module
        return None
    shape, spatial = samples.sample_shape, len(conv.kernel_size)
    given = list(shape)
    if len(shape) == spatial and samples.kind == "array":
        whole = [len(samples), *given]
        if len(samples) == conv.in_channels:
            return f"data {whole} is one sample without [N, ...]: give data[None]"
        return f"data {whole} has no channels, [N, C, ...] is read: give data[:, None]"
    if len(shape) == spatial:
        return f"samples {given} have no channels, [C, ...] is read: give x[None]"
    if len(shape) == spatial + 1 and shape[0] != conv.in_channels == shape[-1]:
        remedy = _PERMUTED[spatial]
        if spatial == 2:
            remedy = f"torchvision.transforms.v2.ToImage(), or {remedy}"
        return f"samples {given} have their channels last, [C, ...] is read: add {remedy}"
    return None
