"""What the page holds as base64: numbers and pictures that it decodes when they are shown."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

PER_CHUNK = 64  # filters whose pictures share a chunk
_ALIGNMENT = 8  # typed arrays start at multiples of their item size


class Chunks:
    """Chunks in the order in which they were added; the index refers to them by number."""

    def __init__(self) -> None:
        self._chunks: list[str] = []

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def size(self) -> int:
        """Bytes that the chunks take in the page."""
        return sum(map(len, self._chunks))

    def arrays(self, named: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Add arrays as one deflated chunk.

        Returns:
            {"chunk": number, "arrays": {name: [dtype, shape, offset]}} for the index.
        """
        parts, places, offset = [], {}, 0
        for name, values in named.items():
            values = np.ascontiguousarray(values, _portable(values.dtype))
            places[name] = [values.dtype.name, list(values.shape), offset]
            padded = values.tobytes() + bytes(-values.nbytes % _ALIGNMENT)
            parts.append(padded)
            offset += len(padded)
        return {"chunk": self._add(zlib.compress(b"".join(parts), 6)), "arrays": places}

    def pictures(self, files: Sequence[bytes]) -> int:
        """Add encoded pictures as one chunk: offsets uint32 [n + 1], then the files."""
        ends = np.cumsum([0, *map(len, files)])
        offsets = (ends + 4 * len(ends)).astype("<u4")
        return self._add(offsets.tobytes() + b"".join(files))

    def text(self, value: Any) -> int:
        """Add plain data as deflated JSON."""
        return self._add(zlib.compress(json.dumps(value).encode("utf-8", "replace"), 6))

    def elements(self) -> Iterator[str]:
        """The chunks as elements of the page; base64 cannot end one early."""
        for number, chunk in enumerate(self._chunks):
            yield f'<script type="text/plain" id="chunk-{number}">{chunk}</script>\n'

    def _add(self, data: bytes) -> int:
        self._chunks.append(base64.b64encode(data).decode("ascii"))
        return len(self._chunks) - 1


def _portable(dtype: np.dtype) -> np.dtype:
    """The typed array that the page reads: JavaScript has no fast 64-bit integers."""
    if dtype.kind == "b":
        return np.dtype("u1")
    if dtype.itemsize == 8:
        return np.dtype("<f4" if dtype.kind == "f" else "<i4")
    return dtype.newbyteorder("<")
