"""Fixtures that tests of several folders use."""

import pytest
from hypothesis import settings

from fastconv.backends import cpu

settings.register_profile("shared machine", deadline=None)  # no test asserts on a time
settings.load_profile("shared machine")


@pytest.fixture
def isa(request):
    """Run the CPU kernels at this instruction set (indirect), where the machine has it."""
    level = request.param
    if cpu.unavailable():
        pytest.skip(cpu.unavailable())
    if level not in cpu.supported_isas():
        pytest.skip(f"this machine has no {level}")
    before = cpu.isa()
    cpu.set_isa(level)
    yield level
    cpu.set_isa(before)
