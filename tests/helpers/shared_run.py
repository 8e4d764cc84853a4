"""One process of a run that several share: `shared_run.py OUT [DIE_AFTER MARKER]`.

With DIE_AFTER, the process that first finds no file MARKER kills itself after so many units.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import fastconv
from fastconv.run import recording, save_clock
from helpers.networks import images, network

OPTIONS = {
    "batch_size": 4,
    "samples": True,
    "maps": [3, 77],
    "hits_per_sample": 2,
    "topk": 5,
    "order": "both",
    "outcomes": True,
    "conditions": {"noise": fastconv.perturb.noise(0.1), "fgsm": fastconv.perturb.fgsm(0.01)},
}
COUNT = 121


def data() -> TensorDataset:
    return TensorDataset(images(COUNT), torch.arange(COUNT) % 4)


def die_after(units: int, marker: Path) -> None:
    """Arm the process that comes first."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    take, taken = recording.Recording.take, []

    def counted(self, *arguments):
        taken.append(1)
        if len(taken) > units:
            os.kill(os.getpid(), signal.SIGKILL)
        take(self, *arguments)

    recording.Recording.take = counted


def save_often() -> None:
    save_clock.MIN_SECONDS = save_clock.COST_FACTOR = save_clock.ELAPSED_SHARE = 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_often()
    if len(sys.argv) > 2:
        die_after(int(sys.argv[2]), Path(sys.argv[3]))
    fastconv.extract(network(), data(), sys.argv[1], progress=False, **OPTIONS)
