from __future__ import annotations

import triton
from torch import Tensor

from fastconv.backends.triton import tuning
from fastconv.backends.triton.kernels.channel_reduce import channel_reduce_kernel
from fastconv.backends.triton.launch import launch, merge_segments, unsupported
from fastconv.backends.triton.layout import dense_activation
from fastconv.reduction import CandidateLists, empty_fields

TAKES = frozenset({"candidates"})


def supports(x: Tensor, *rest: object) -> str | None:
    return unsupported(x)


def run(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    histogram: Tensor | None,
    candidates: CandidateLists | None = None,
) -> tuple[Tensor, ...]:
    x, stride_c, stride_p = dense_activation(x)
    samples, channels = x.shape[:2]
    positions = x.shape[2:].numel()
    config = tuning.channel_reduce(
        x.device,
        channels,
        positions,
        channels_last=stride_c == 1,
        lists=candidates is not None,
    )
    segments = triton.cdiv(positions, config.tiles * config.steps * config.block_p)
    parts = empty_fields(segments * samples, channels, x.device)
    if samples:
        launch(
            channel_reduce_kernel,
            (samples, triton.cdiv(channels, config.block_c), segments),
            x.device,
            warps=config.warps,
            stages=config.stages,
            x=x,
            scale=scale,
            shift=shift,
            fields=parts,
            histogram=histogram,
            candidates=None if candidates is None else candidates.pointers(),
            SAMPLES=samples,
            CHANNELS=channels,
            POSITIONS=positions,
            stride_c=stride_c,
            stride_p=stride_p,
            TILES=config.tiles,
            STEPS=config.steps,
            BLOCK_C=config.block_c,
            BLOCK_P=config.block_p,
            ACTIVATION=activation,
            LARGEST=candidates is None or candidates.largest,
        )
    return merge_segments(parts, segments)
