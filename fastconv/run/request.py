"""What `extract` was asked, from which any process makes the same job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastconv.capture import Forward
from fastconv.data import open_data
from fastconv.engines.ranks import Rank
from fastconv.errors import InputError
from fastconv.run.allocator import freed_memory_kept
from fastconv.run.condition import conditions_of, descriptions
from fastconv.run.job import Job
from fastconv.run.options import Options
from fastconv.run.outcomes import describe_output
from fastconv.run.output_file import begin
from fastconv.run.shared import measure_shared
from fastconv.run.transfer import on_device
from fastconv.store.parts import PartsFolder


@dataclass(frozen=True)
class Request:
    """The arguments of `extract`; `asked` are those that become `Options`."""

    model: nn.Module
    data: Any
    out: Path
    layers: Any
    conditions: Any
    output: Any
    forward: Forward | None
    on_error: str
    device: torch.device | str | None
    num_workers: int
    progress: bool
    asked: dict[str, Any]

    def check(self) -> None:
        """Raise for what can be told before the data set is opened."""
        if self.on_error not in ("raise", "skip"):
            raise InputError(f"on_error must be raise or skip, got {self.on_error!r}")

    @contextlib.contextmanager
    def job(self, rank: Rank | None = None) -> Iterator[Job]:
        """The job, with the model on its device: that of the rank, where none was asked for."""
        source = open_data(self.data, skip=self.on_error == "skip")
        if source.length is None and self.asked["shard"] is not None:
            len(source)  # counts: shares are consecutive
        changes = conditions_of(self.conditions)
        options = Options.create(
            length=source.length,
            output=describe_output(self.output),
            conditions=descriptions(changes),
            **self.asked,
        )
        device = self.device
        if device is None and rank is not None:
            device = rank.device()
        with freed_memory_kept(), on_device(self.model, device) as where:
            yield Job(
                self.model,
                source,
                options,
                self.layers,
                where,
                conditions=changes,
                output=self.output,
                forward=self.forward,
            )

    def measure_share(self, rank: Rank) -> None:
        """Measure, as one of several processes, until all is in parts."""
        with self.job(rank) as job, PartsFolder(self.out, shared=True) as folder:
            with folder.alone("start"):
                begin(folder, job, resume=True)
            measure_shared(job, folder, rank, self.num_workers, progress=self.progress)
