"""Memory that a run frees is used again, and given back at the end."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import contextlib, pathlib, resource, torch
from fastconv.run.allocator import freed_memory_kept

VALUES = 24 << 20  # 96 MB of float32, more than is ever kept otherwise
PAGES = VALUES * 4 // resource.getpagesize()
TIMES = 24

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        torch.ones(VALUES)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1])  # pages

assert new_pages() > (TIMES - 1) * PAGES
# what the C library frees fits the next request after a few: something small may have split it
with contextlib.suppress(ValueError), freed_memory_kept():
    new_pages()
    with freed_memory_kept():  # two runs at a time
        assert new_pages() < TIMES / 2 * PAGES
    assert new_pages() < TIMES / 2 * PAGES
    kept = resident()
    raise ValueError  # a run that fails
assert resident() < kept - PAGES // 2
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again_and_given_back():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
