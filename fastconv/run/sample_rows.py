"""One value a sample: labels, outcomes and columns, unit after unit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.store.parts import Part, PartWriter


def packed(values: Iterable[Any]) -> np.ndarray:
    """Numbers, texts and None, each as JSON: which kind a column is shows at its end."""
    return np.array([json.dumps(value).encode() for value in values])


def unpacked(rows: np.ndarray) -> list[Any]:
    """What was packed."""
    return [json.loads(row) for row in rows.tolist()]


def column(values: Sequence[Any]) -> np.ndarray | list[str]:
    """One column: texts where any value is one, else int64, or float64 (None: NaN)."""
    if any(isinstance(value, str) for value in values):
        return texts(values)
    whole = all(isinstance(value, int) for value in values)
    return np.array([np.nan if v is None else v for v in values], np.int64 if whole else np.float64)


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """A column of several runs, as it is of one."""
    if all(part.dtype.kind in "if" for part in parts):
        return np.concatenate(parts)
    return np.array([text for part in parts for text in texts(part.tolist())], object)


def texts(values: Iterable[Any]) -> list[str]:
    """Each value as text; empty where it is missing."""
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


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
