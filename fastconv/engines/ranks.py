"""The place of this process among those that a launcher started for one job."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch


class Rank(NamedTuple):
    """Number of this process, of all, and on its machine."""

    number: int
    total: int
    local: int = 0

    def device(self) -> torch.device:
        """The GPU of this process, one each; the CPU where there is none."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local % torch.cuda.device_count())


def current_rank() -> Rank | None:
    """From an initialised process group, or what `torchrun` sets; None in a process of its own."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        number, total = torch.distributed.get_rank(), torch.distributed.get_world_size()
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        number, total = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    else:
        return None
    return Rank(number, total, local) if total > 1 else None


def on_several_machines(rank: Rank | None) -> bool:
    """Whether a launcher says that the processes of one job are on several machines."""
    return rank is not None and int(os.environ.get("LOCAL_WORLD_SIZE", rank.total)) < rank.total
