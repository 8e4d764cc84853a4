"""One value a sample: labels, outcomes and columns, unit after unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fastconv.store.parts import Part, PartWriter


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
