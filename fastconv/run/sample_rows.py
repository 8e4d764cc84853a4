"""One value a sample: labels, outcomes and columns, unit after unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.store.parts import Part, PartWriter


def column_array(values: Sequence[Any]) -> np.ndarray:
    """Values of one column as int64, float64 (None: NaN) or UTF-8 text (None: empty)."""
    known = [v for v in values if v is not None]
    if len(known) == len(values) and all(isinstance(v, int) for v in values):
        return np.array(values, np.int64)
    if all(isinstance(v, int | float) for v in known):
        return np.array([np.nan if v is None else v for v in values], np.float64)
    return np.array([b"" if v is None else str(v).encode(errors="replace") for v in values])


def decoded(column: np.ndarray) -> np.ndarray | list[str]:
    """A column as results have it: numbers, or texts."""
    return [t.decode() for t in column.tolist()] if column.dtype.kind == "S" else column


class SampleRows:
    """Arrays by name that grow by the samples of a unit; saved and forgotten with every part."""

    def __init__(self) -> None:
        self._rows: dict[str, list[np.ndarray]] = {}

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        for name, values in rows.items():
            self._rows.setdefault(name, []).append(values)

    def save(self, writer: PartWriter) -> None:
        """Add everything to a part, and start anew."""
        for name, values in self._rows.items():
            writer.append(name, np.concatenate(values))
        self._rows = {}

    def joined(self, name: str, parts: Sequence[Part], first: int) -> np.ndarray | None:
        """The rows of all parts and those not saved yet, in order; None where there are none.

        Args:
            first: the unit that those not saved yet begin with.
        """
        stored = [(part.first, part.rows(name)) for part in parts]
        if name in self._rows:
            stored.append((first, np.concatenate(self._rows[name])))
        stored.sort(key=lambda entry: entry[0])
        found = [rows for _, rows in stored if rows is not None]
        return np.concatenate(found) if found else None
