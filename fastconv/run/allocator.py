"""Memory that a run frees stays with the process until the run ends.

The C library maps every large tensor anew, and unmaps it when it is freed; touching the new pages
can cost a forward a third of its time (docs/benchmarks.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import threading
from collections.abc import Iterator

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MAPS = 65536  # its own choice
_MAPPED_FROM = 32 << 20  # bytes; where its own choice ends up once so much was freed
_lock = threading.Lock()
_users = 0


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Reuse freed memory inside; give it back at the end. Does nothing but on glibc.

    Afterwards the C library maps what is larger than 32 MB anew each time, as it does by itself
    in a process that has freed so much before.
    """
    global _users
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                libc.mallopt(_M_MMAP_MAX, _MAPS)
                libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
                libc.mallopt(_M_TRIM_THRESHOLD, 2 * _MAPPED_FROM)
                libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
