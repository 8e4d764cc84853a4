"""Arrays of numpy: `[C, *spatial]`, scaled no further."""

from __future__ import annotations

import numpy as np

from fastconv.data.formats import File, ReadAs, Stored
from fastconv.errors import DataError


def read(file: File, index: int, how: ReadAs) -> Stored:
    """One array of numbers."""
    del index, how
    values = np.load(file, allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub" or values.ndim < 1:
        raise DataError("it is not an array of real numbers [C, ...]")
    return Stored(values, 0.0, 1.0)
