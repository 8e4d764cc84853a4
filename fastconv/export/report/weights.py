"""The weights of a layer's filters: the input channels that matter most, a byte a weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.export.report.budget import Budget
from fastconv.export.report.chunks import PER_CHUNK, Chunks
from fastconv.export.report.pictures import shorten

_LONGEST = 256  # of a line of weights
_LARGEST = 4096  # elements of the kernel of one channel
_COLOURS = 3  # a 2-D kernel over three channels is shown in colour


def weights(weight: np.ndarray, chunks: Chunks, budget: Budget) -> dict[str, Any] | None:
    """Add the weights [C, C_in, *kernel] of a layer; None where they make no picture.

    Returns:
        {"shape": of one channel's kernel, "of": C_in, "packs"}: for every `PER_CHUNK` filters
        level int8 [F, m, *kernel] in 127ths of peak [F], and channel [F, m], strongest first.
    """
    inputs, kernel = weight.shape[1], weight.shape[2:]
    elements = int(np.prod(kernel))
    if not weight.size or elements > _LARGEST:
        return None
    over_channels = elements == 1
    if over_channels:  # the kernel is a point: one line over the input channels
        weight = shorten(weight.reshape(len(weight), 1, inputs), _LONGEST)
    elif len(kernel) == 1:
        weight = shorten(weight, _LONGEST)
    shown = min(weight.shape[1], max(budget.channels, _COLOURS))
    packs = [
        chunks.arrays(_strongest(weight[start : start + PER_CHUNK], shown))
        for start in range(0, len(weight), PER_CHUNK)
    ]
    return {
        "shape": list(weight.shape[2:]),
        "of": inputs,
        "shown": shown,
        "over_channels": over_channels,
        "packs": packs,
    }


def _strongest(weight: np.ndarray, shown: int) -> dict[str, np.ndarray]:
    weight = np.nan_to_num(np.asarray(weight, np.float32), posinf=0, neginf=0)
    flat = weight.reshape(*weight.shape[:2], -1)
    if shown < weight.shape[1]:
        norm = np.square(flat).sum(axis=2)
        channel = np.argsort(-norm, axis=1, kind="stable")[:, :shown]
        flat = np.take_along_axis(flat, channel[:, :, None], axis=1)
    else:
        channel = np.broadcast_to(np.arange(shown), (len(weight), shown))
    peak = np.abs(flat).max(axis=(1, 2))
    levels = np.rint(127 * flat / np.where(peak > 0, peak, 1)[:, None, None]).astype(np.int8)
    shape = (len(weight), shown, *weight.shape[2:])
    return {"level": levels.reshape(shape), "channel": channel.astype(np.int32), "peak": peak}
