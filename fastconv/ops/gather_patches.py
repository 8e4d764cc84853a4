"""Crop boxes out of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastconv import dispatch
from fastconv.errors import InputError

torch.library.define(
    "fastconv::gather_patches",
    "(Tensor input, Tensor index, Tensor start, int[] size, str backend='auto') -> Tensor",
)


@torch.library.impl("fastconv::gather_patches", ("CPU", "CUDA"))
def _run(input, index, start, size, backend="auto"):
    args = (input, index, start, size)
    return dispatch.select("gather_patches", backend, input.device, *args)(*args)


@torch.library.register_fake("fastconv::gather_patches")
def _fake(input, index, start, size, backend="auto"):
    return input.new_empty((index.shape[0], input.shape[1], *size))


def gather_patches(
    input: Tensor, index: Tensor, start: Tensor, size: int | Sequence[int], *, backend: str = "auto"
) -> Tensor:
    """Crop `input[index[m], :, start[m] : start[m] + size]` for every m; zeros outside the input.

    Args:
        input: [N, C, *spatial] with 1 to 3 spatial dimensions, any dtype of 1, 2, 4 or 8 bytes.
        index: [M] int64, rows of `input`. On a GPU they are not checked, which would mean to wait
            for it: a row that does not exist gives zeros.
        start: [M, D] int64, first position per spatial dimension; it may lie outside the input.
        size: D ints, the size of every patch (or one int for all dimensions).

    Returns:
        [M, C, *size], dtype of `input`, contiguous.

    Raises:
        InputError: an index outside the batch (on the CPU), or shapes and dtypes that do not fit.

    Memory:
        Only the boxes are read.
    """
    rank = input.ndim - 2
    if not 1 <= rank <= 3:
        raise InputError(
            "input must be [N, C, *spatial] with 1 to 3 spatial dimensions, "
            f"got {list(input.shape)}"
        )
    size = [size] * rank if isinstance(size, int) else [int(s) for s in size]
    if len(size) != rank or min(size) < 1:
        raise InputError(f"size must be {rank} positive ints, got {size}")
    if index.dtype != torch.int64 or index.ndim != 1:
        raise InputError(f"index must be int64 [M], got {index.dtype} {list(index.shape)}")
    if start.dtype != torch.int64 or start.shape != (index.shape[0], rank):
        raise InputError(
            f"start must be int64 [{index.shape[0]}, {rank}], got {start.dtype} {list(start.shape)}"
        )
    if index.device != input.device or start.device != input.device:
        raise InputError(
            f"input is on {input.device}, index on {index.device}, start on {start.device}"
        )
    if not torch.compiler.is_compiling() and index.device.type == "cpu" and index.numel():
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= input.shape[0]:
            raise InputError(
                f"index reaches from {low} to {high}, the batch has {input.shape[0]} samples"
            )
    return dispatch.run("gather_patches", backend, input, index, start, size)
