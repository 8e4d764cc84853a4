"""One line of a report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that was checked: its name, whether it holds, and how it was found out."""

    name: str
    ok: bool
    detail: str
