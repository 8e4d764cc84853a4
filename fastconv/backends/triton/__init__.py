"""Triton kernels for CUDA devices, and for CPU tensors under TRITON_INTERPRET=1 (tests)."""

from __future__ import annotations

import torch
import triton

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 6):
    raise ImportError(f"triton {triton.__version__} is too old; install triton 3.6 or later")

from fastconv.backends import Kernel
from fastconv.backends.triton import (
    channel_normalize,
    channel_reduce,
    conv_reduce,
    exact_add,
    gather_patches,
    place_patches,
    topk_merge,
)
from fastconv.backends.triton.launch import INTERPRETED


def unavailable() -> str | None:
    if torch.cuda.is_available() or INTERPRETED:
        return None
    return "there is no CUDA device (TRITON_INTERPRET=1 runs the kernels on the CPU, slowly)"


KERNELS = {
    module.__name__.rpartition(".")[2]: Kernel(
        module.run, module.supports, getattr(module, "TAKES", frozenset())
    )
    for module in (
        conv_reduce,
        channel_reduce,
        channel_normalize,
        topk_merge,
        gather_patches,
        place_patches,
        exact_add,
    )
}
