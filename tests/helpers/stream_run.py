"""One process of a run over a stream of unknown length.

stream_run.py OUT [ray | DIE_AFTER MARKER]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import IterableDataset

import fastconv
from helpers.networks import images, network
from helpers.shared_run import COUNT, OPTIONS, die_after, save_often

EVERYTHING = {**OPTIONS, "thumbnails": True, "progress": False}


class Stream(IterableDataset):
    """The first samples of a fixed set with their labels, and how far each pass over it came."""

    def __init__(self, count: int = COUNT):
        self.x, self.count = images(COUNT), count
        self.passes: list[int] = []

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        self.passes.append(0)
        number = len(self.passes) - 1
        for i in range(self.count):
            self.passes[number] += 1
            yield self.x[i], i % 4


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_often()
    engine = "ray:3" if sys.argv[2:] == ["ray"] else None
    if len(sys.argv) > 3:
        die_after(int(sys.argv[2]), Path(sys.argv[3]))
    fastconv.extract(network(), Stream(), sys.argv[1], engine=engine, **EVERYTHING)
