"""The kernels of csrc/cuda on a GPU if there is one, else compiled for the processor."""

from __future__ import annotations

import shutil

import pytest
import torch
from helpers.on_host import build_on_host


@pytest.fixture(scope="session")
def on_host(tmp_path_factory):
    """A library of the kernels for tensors on the CPU."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels for the processor")
    return build_on_host(tmp_path_factory.mktemp("on_host"))


@pytest.fixture(scope="session")
def kernels(request):
    """`KERNELS` of the backend; without a GPU they run on CPU tensors."""
    from fastconv.backends import cuda
    from fastconv.backends.cuda import limits

    if torch.cuda.is_available():
        if cuda.unavailable():
            pytest.skip(cuda.unavailable())
        yield cuda.KERNELS
        return
    torch.ops.load_library(request.getfixturevalue("on_host"))
    before = limits.no_device
    limits.no_device = lambda x: None
    yield cuda.KERNELS
    limits.no_device = before


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def poisoned_memory():
    """torch.empty gives NaN and the largest integers: what a kernel forgets to write shows."""
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # of the reference: no tf32, and no transforms, which round and spread NaN
    with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
        yield
    torch.use_deterministic_algorithms(mode=False)
