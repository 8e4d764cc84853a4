"""Inputs put together again from patches of them (private: not one of the public ops)."""

from __future__ import annotations

from torch import Tensor

from fastconv import dispatch


def paste_patches(
    patches: Tensor, index: Tensor, start: Tensor, inputs: Tensor, known: Tensor
) -> None:
    """inputs[index[m], :, start[m] : start[m] + size] = patches[m] where not `known`; it is then.

    Patches are taken in order: of several that show a point, the first decides.

    Args:
        patches: [M, C, *size] with 1 to 3 spatial dimensions; contiguous, or channels last.
        index: [M] int64, rows of `inputs`.
        start: [M, D] int64; what lies outside the inputs is left out.
        inputs: [S, C, *extent], dtype and layout as `patches`; written to.
        known: contiguous [S, *extent] bool; written to.
    """
    args = (patches, index, start, inputs, known)
    dispatch.select("paste_patches", "auto", patches.device, *args)(*args)
