"""Data sets of every accepted kind, read by index: `open_data(data) -> Samples`."""

from fastconv.data.hints import hint
from fastconv.data.open import open_data
from fastconv.data.samples import Samples

__all__ = ["Samples", "hint", "open_data"]
