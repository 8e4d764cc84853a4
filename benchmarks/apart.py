"""Cases in processes of their own, where memory that is freed stays with the process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

SMOKE = os.environ.get("FASTCONV_BENCH_SMOKE") == "1"
# Of glibc, for new processes; it ignores a larger threshold of mapping, and never maps with 0 maps.
FREED_MEMORY_KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


def apart(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call in a new process; of small sizes, which show only that it runs, in this one."""
    if SMOKE:
        return function(*args, **kwargs)
    os.environ |= FREED_MEMORY_KEPT
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args, kwargs)
