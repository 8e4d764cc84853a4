"""Two runs on one page: whether they fit, what differs, and what changed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fastconv.errors import InputError
from fastconv.export.report import insight
from fastconv.export.report.distribution import statistics
from fastconv.export.report.runs import file_name
from fastconv.store.reader import Run


def shared_layers(a: Run, b: Run) -> list[str]:
    """The layers that both have, with the same number of filters.

    Raises:
        InputError: there are none.
    """
    found = [n for n in a.layers if n in b and a[n].info.channels == b[n].info.channels]
    if not found:
        raise InputError(
            f"{file_name(a)} and {file_name(b)} do not fit: no layer of the same name has the same "
            f"number of filters; {'; '.join(differences(a, b)[:3])}"
        )
    return found


def differences(a: Run, b: Run) -> list[str]:
    """One line for each thing that is not the same in the two runs."""
    lines = []
    for mine, other in ((a, b), (b, a)):
        only = [name for name in mine.layers if name not in other]
        if only:
            more = f" and {len(only) - 5} more" if len(only) > 5 else ""
            lines.append(f"only in {file_name(mine)}: {', '.join(only[:5])}{more}")
    for name in a.layers:
        if name in b and a[name].info.channels != b[name].info.channels:
            sizes = a[name].info.channels, b[name].info.channels
            lines.append(f"{name}: {sizes[0]} filters, and {sizes[1]}")
    before, after = (_flat(run.config.get("fingerprint", {})) for run in (a, b))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and key != "layers":
            lines.append(f"{key}: {_short(before.get(key))}, and {_short(after.get(key))}")
    return lines


def changes(a: Run, b: Run) -> dict[str, dict[str, np.ndarray]]:
    """Columns of the first run's layers [C]: what the second has more, and how well they match."""
    table, _ = insight.ask("compare", a, b)
    found = {}
    for name in shared_layers(a, b):
        before, after = statistics(a[name]), statistics(b[name])
        columns = {
            f"change_{key}": after[key] - before[key]
            for key in ("mean", "max", "positive")
            if key in before and key in after
        }
        rows = insight.rows_of(table, name)
        for key in () if rows is None else ("match", "similarity"):
            columns[key] = np.full(a[name].info.channels, np.nan)
            columns[key][rows["filter"].to_numpy()] = rows[key].to_numpy(np.float64)
        found[name] = columns
    return found


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else str(key))
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
