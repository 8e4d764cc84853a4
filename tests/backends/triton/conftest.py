"""Kernels run on the GPU if there is one, else in Triton's interpreter; empty memory is poison."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def dot_of_rows(monkeypatch):
    """The interpreter's matrix product sums every row alike, as a GPU does; not so every BLAS."""
    if not torch.cuda.is_available():
        from triton.runtime import interpreter

        def matmul(a, b, dtype):
            return np.einsum("...mk,...kn->...mn", a, b, dtype=dtype)

        monkeypatch.setattr(interpreter.np, "matmul", matmul)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """torch.empty gives NaN and the largest integers: what a kernel forgets to write shows."""
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(mode=False)
