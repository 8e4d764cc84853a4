"""Recompute stored hits from the model and the data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fastconv.errors import DataError
from fastconv.measure.patches import PatchSource
from fastconv.run.job import Job
from fastconv.store.reader import Run
from fastconv.verification.layer_check import Check, CheckedBatch, LayerCheck


def check_hits(run: Run, job: Job, hits: int | None, *, exact: bool) -> list[Check]:
    """Run the network over the batches of that many stored hits of every layer, and compare.

    With fewer samples at a time where memory ends, and then not bit for bit, for a forward may
    round by their number.
    """
    fewer = run.config.get("samples_at_a_time")  # from some batch on
    job.samples_at_a_time = fewer or job.samples_at_a_time
    layers = [LayerCheck(job, planned, run[planned.info.name], hits) for planned in job.layers]
    exact = exact and fewer is None
    while True:
        for layer in layers:
            layer.exact = exact
            layer.forget()
        try:
            _check_units(job, layers)
            return [layer.verdict() for layer in layers]
        except torch.OutOfMemoryError as error:
            job.take_fewer(error)
            exact = False
        torch.cuda.empty_cache()


def _check_units(job: Job, layers: list[LayerCheck]) -> None:
    units = job.options.units(len(job.source))
    needed = sorted(set().union(*(layer.units(job.options.batch_size) for layer in layers)))
    with _inputs_kept(layers):
        batches = job.source.batches([units[u] for u in needed])
        for number, (inputs, _) in zip(needed, batches, strict=True):
            _check_unit(job, layers, units[number], inputs)


def _check_unit(job: Job, layers: list[LayerCheck], unit: range, inputs: Tensor) -> None:
    kept = np.asarray(job.source.kept(unit), np.int64)
    wanted = set().union(*(layer.samples_in(unit) for layer in layers))
    for sample in sorted(wanted - set(kept.tolist())):
        raise DataError(f"a hit is of it, but {job.source.skipped[sample]}")
    for rows in job.pieces(len(kept)):
        piece = job.transfer(inputs[rows])
        batch = CheckedBatch(kept[rows], PatchSource(piece, job.display))
        job.forward(piece, layers, batch)


@contextlib.contextmanager
def _inputs_kept(layers: list[LayerCheck]) -> Iterator[None]:
    handles = [handle for layer in layers if (handle := layer.watch()) is not None]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
