"""What an extraction costs beside the plain forward of the same network, on this machine."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastconv.capture.batch import first_tensor, map_tensors
from fastconv.capture.network import Network
from fastconv.data import Samples, open_data
from fastconv.errors import InputError
from fastconv.run.allocator import freed_memory_kept
from fastconv.run.extract import extract
from fastconv.run.transfer import Transfer, on_device

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by dimensions of a batch


@dataclass(frozen=True)
class Costs:
    """Medians over interleaved rounds, in seconds, with freed memory kept on both sides.

    Attributes:
        samples, length: how many were measured, and how many the data set has (None: not known).
        forward: by memory layout, of all samples from memory.
        extraction, one: with every default, of all samples from memory, and of a single one.
        ratios: of every round, the extraction to the fastest forward of that round.
    """

    samples: int
    length: int | None
    forward: dict[str, float]
    extraction: float
    one: float
    ratios: list[float]

    @property
    def fastest(self) -> float:
        return min(self.forward.values())

    @property
    def each(self) -> float:
        """Seconds that every further sample of an extraction takes, beside start and file."""
        return max(self.extraction - self.one, 0) / max(self.samples - 1, 1)


def costs(
    model: nn.Module,
    data: Any,
    *,
    samples: int = 256,
    batch_size: int = 32,
    rounds: int = 3,
    device: torch.device | str | None = None,
) -> Costs:
    """Measure both on the first samples of a data set.

    Raises:
        InputError: numbers below 1, or a model or data that cannot be used.
    """
    given = {"samples": samples, "batch_size": batch_size, "rounds": rounds}
    for name, number in given.items():
        if number < 1:
            raise InputError(f"{name} must be 1 or more, got {number}")
    source = open_data(data)
    length = source.length
    count = samples if length is None else min(samples, length)
    units = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
    with on_device(model, device) as place, tempfile.TemporaryDirectory() as folder:
        batches = _read(source, units)
        held = [one for batch in batches for one in _single(batch)]
        steps = _forwards(model, batches, place)

        def extraction(of: Any) -> None:
            extract(
                model, of, Path(folder) / "run.h5",
                batch_size=batch_size, device=place, overwrite=True, progress=False,
            ).close()  # fmt: skip

        steps["extraction"] = lambda: extraction(held)
        steps["one"] = lambda: extraction(held[:1])
        with freed_memory_kept():
            for step in steps.values():  # what only a first call costs
                step()
            rows = [
                {name: _seconds(step, place) for name, step in steps.items()} for _ in range(rounds)
            ]
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            found[name].append(value)
    middle = {name: statistics.median(values) for name, values in found.items()}
    whole, one = middle.pop("extraction"), middle.pop("one")
    ratios = [row["extraction"] / min(row[name] for name in middle) for row in rows]
    return Costs(len(held), length, middle, whole, one, ratios)


def _read(source: Samples, units: list[range]) -> list[Any]:
    known = source.length is not None
    try:
        return [batch for batch, _ in source.batches(units)]
    except InputError as error:
        if known:
            raise
        raise InputError(
            f"the stream has fewer than {units[-1].stop} samples; ask for fewer"
        ) from error


def _single(batch: Any) -> list[Any]:
    """The samples of a batch, as a data set gives them, with a label."""

    def sample(row: int) -> Any:
        return map_tensors(batch, lambda tensor: tensor[row]), 0

    return [sample(row) for row in range(len(first_tensor(batch)))]


def _forwards(
    model: nn.Module, batches: list[Any], place: torch.device
) -> dict[str, Callable[[], None]]:
    """The plain forward of all batches by memory layout; each has a model of its own."""
    kinds = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(kinds, None)
    layouts = {"contiguous": torch.contiguous_format}
    rank = first_tensor(batches[0]).ndim
    if rank in LAYOUTS:
        layouts["channels last"] = LAYOUTS[rank]

    def forward(layout: torch.memory_format) -> Callable[[], None]:
        laid_out = copy.deepcopy(model)
        laid_out.to(memory_format=layout)  # type: ignore[call-overload]
        network = Network(laid_out)
        transfer = Transfer(place, layout, dtype)

        def run() -> None:
            with network.running():
                for batch in batches:
                    network.call(transfer(batch))

        return run

    return {name: forward(layout) for name, layout in layouts.items()}


def _seconds(step: Callable[[], None], place: torch.device) -> float:
    began = time.perf_counter()
    step()
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    return time.perf_counter() - began
