"""Data sets of every accepted kind, read by index: `open_data(data) -> Samples`."""

from fastconv.data.hints import hint, hinted
from fastconv.data.media_folder import MediaFolder
from fastconv.data.open import open_data
from fastconv.data.samples import Samples
from fastconv.data.tar_shards import TarShards

__all__ = ["MediaFolder", "Samples", "TarShards", "hint", "hinted", "open_data"]
