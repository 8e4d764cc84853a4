"""Fixtures that tests of several folders use."""

import subprocess

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


@pytest.fixture
def small_disk(tmp_path):
    """Makes a folder that is a disk of its own, of a size such as "24m"; again: of another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, mode="rw"):
        options = f"size={size},{mode}" + (",remount" if folder.is_mount() else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here, which needs root: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True, check=False)
