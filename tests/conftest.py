"""Fixtures that tests of several folders use."""

import subprocess
from collections import Counter

import pytest
from hypothesis import settings

from fastconv.backends import cpu

# no test asserts on a time; `make fuzz` looks for new cases, every other run repeats the same ones
settings.register_profile("same every time", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile("same every time")

LEFT_OUT = pytest.StashKey[dict[str, int]]()  # tests by instruction set that the processor lacks


def pytest_collection_modifyitems(config, items):
    """Leave out the tests of instruction sets that this processor lacks."""
    supported = () if cpu.unavailable() else cpu.supported_isas()
    lacking = [i for i in items if _isa(i) not in (None, *supported)]
    config.stash[LEFT_OUT] = dict(Counter(_isa(item) for item in lacking))
    if lacking:
        config.hook.pytest_deselected(items=lacking)
        items[:] = [item for item in items if _isa(item) in (None, *supported)]


def pytest_terminal_summary(terminalreporter, config):
    for name, count in config.stash.get(LEFT_OUT, {}).items():
        terminalreporter.write_line(f"{count} tests left out: this machine cannot run {name} code")


def _isa(item):
    return item.callspec.params.get("isa") if hasattr(item, "callspec") else None


@pytest.fixture
def isa(request):
    """Run the CPU kernels at this instruction set (indirect)."""
    before = cpu.isa()
    cpu.set_isa(request.param)
    yield request.param
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
