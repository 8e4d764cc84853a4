"""Implementations only; `fastconv.dispatch` chooses among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Kernel(NamedTuple):
    """One implementation of an op: both callables take the op's checked arguments."""

    run: Callable[..., Any]
    supports: Callable[..., str | None]  # None, or the reason why this call cannot run
    takes: frozenset[str] = frozenset()  # keywords of run beside: "post_ops", "candidates"
    pack: Callable[..., Any] | None = None  # of weight, stride, dilation, groups: `packed`
