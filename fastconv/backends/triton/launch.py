"""What every wrapper needs: may it run here, how a kernel is started, how segments are merged."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from fastconv.backends.triton.kernels.merge_segments import merge_segments_kernel
from fastconv.reduction import empty_fields

INTERPRETED = not isinstance(merge_segments_kernel, triton.JITFunction)
_LIMIT = 2**30  # elements of a sample: offsets, and how far tiles reach beyond it, are int32


def no_device(x: Tensor) -> str | None:
    """Why the kernels cannot run where x is, or None."""
    if not x.is_cuda:
        return (
            None if INTERPRETED else f"the tensor is on {x.device}, and TRITON_INTERPRET is not set"
        )
    major, minor = torch.cuda.get_device_capability(x.device)
    if major < 8:
        return f"the device is sm_{major}{minor}; the kernels need sm_80 or later"
    return None


def unsupported(x: Tensor) -> str | None:
    """Why no kernel that computes can run on x [N, ...], or None."""
    if x.dtype == torch.float64:
        return "float64 runs on the reference backend only"
    if x[:1].numel() > _LIMIT:
        return f"one sample has {x[:1].numel()} elements, more than 2^30"
    return no_device(x)


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    device: torch.device,
    warps: int,
    stages: int,
    **arguments: Any,
) -> None:
    """Start a kernel; no option is left to a default that differs between versions."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](**arguments, num_warps=warps, num_stages=stages, enable_fp_fusion=False)


def merge_segments(parts: tuple[Tensor, ...], segments: int) -> tuple[Tensor, ...]:
    """Fields [segments * N, C] -> [N, C], added in the order of the segments."""
    if segments == 1:
        return parts
    samples, channels = parts[0].shape[0] // segments, parts[0].shape[1]
    fields = empty_fields(samples, channels, parts[0].device)
    rows, block = samples * channels, 256
    if rows:
        launch(
            merge_segments_kernel,
            (triton.cdiv(rows, block),),
            parts[0].device,
            warps=4,
            stages=1,
            parts=parts,
            fields=fields,
            SEGMENTS=segments,
            ROWS=rows,
            BLOCK=block,
        )
    return fields
