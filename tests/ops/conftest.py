"""What the shared cases need on a GPU."""

from __future__ import annotations

import pytest
import torch

from fastconv.errors import BackendUnavailableError


@pytest.fixture(autouse=True)
def float32_products():
    """Convolutions of torch on a GPU: no tf32, and no transforms, which spread NaN and rounding."""
    with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Leave out the cases that a backend of a few, by name, has no kernel for."""
    try:
        return (yield)
    except Exception as error:
        refused = error if isinstance(error, BackendUnavailableError) else error.__cause__
        named = item.callspec.params.get("backend") if hasattr(item, "callspec") else None
        if named != "cuda" or not isinstance(refused, BackendUnavailableError):
            raise
        pytest.skip(str(refused))
