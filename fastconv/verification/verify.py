"""`verify`: recompute what a file says, from the model and the data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fastconv.capture import Forward
from fastconv.data import open_data
from fastconv.errors import InputError
from fastconv.format.result import Rows
from fastconv.measure.exact_sum import mean_and_var
from fastconv.run.allocator import freed_memory_kept
from fastconv.run.condition import rebuilt
from fastconv.run.job import Job
from fastconv.run.options import Options
from fastconv.run.outcomes import rebuilt_output
from fastconv.run.transfer import on_device
from fastconv.store.read_layer import Layer
from fastconv.store.reader import Run, open_run
from fastconv.verification.check import Check
from fastconv.verification.hits import HitChecker


@dataclass(frozen=True)
class Report:
    """The findings of `fastconv.verify`; true where every check holds.

    Example:
        >>> weights = Check("conv1 weights", True, "equal")
        >>> report = Report((weights, Check("conv1 hits", False, "2 differ")))
        >>> bool(report)
        False
        >>> print(report)
        ok    conv1 weights: equal
        FAIL  conv1 hits: 2 differ
        1 of 2 checks failed
    """

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{'ok  ' if c.ok else 'FAIL'}  {c.name}: {c.detail}" for c in self.checks]
        failed = sum(not c.ok for c in self.checks)
        lines.append(f"{failed} of {len(lines)} checks failed" if failed else "everything holds")
        return "\n".join(lines)


def verify(
    path: str | os.PathLike[str],
    model: nn.Module,
    data: Any,
    hits: int | None = None,
    *,
    conditions: Mapping[str, Any] | None = None,
    output: Any = None,
    forward: Forward | None = None,
    device: torch.device | str | None = None,
) -> Report:
    """Check a finished file against the model and the data it was made from.

    Every stored hit is recomputed at its position: the network runs again over the batches that
    the hits came from; the value and the place of the maximum must be those stored (bit for bit
    with the software and the threads that made the file); and the convolution at that one position,
    computed in float64 from its own input, must agree within the bound of its dtype and length.
    Weights, boxes, pictures, checksums, hashes and the consistency of the statistics are checked
    as well.

    Args:
        path: the file.
        model, data: what it was made from.
        hits: check that many hits per layer, evenly chosen, and the outcomes of their batches;
            default all.
        conditions: those of `extract` that are no perturbations of fastconv.
        output: that of `extract`, if it was a function.
        forward: that of `extract`.
        device: where the model runs; default where it is.

    Returns:
        A `Report`, true where everything holds.

    Raises:
        FileFormatError: no complete fastconv file.
        InputError: the model or the data set lacks what the file speaks of.
    """
    if hits is not None and hits < 1:
        raise InputError(f"hits must be at least 1, or None for all, got {hits}")
    with open_run(path) as run, freed_memory_kept(), on_device(model, device) as where:
        stored = run.config["fingerprint"]
        source = open_data(data, skip=run.samples is not None and len(run.samples.skipped) > 0)
        if source.length is None:
            source.expect(stored["data"]["length"])
        options = Options.from_stored(stored)
        job = Job(
            model,
            source,
            options,
            stored["layers"],
            where,
            conditions=rebuilt(options.conditions, conditions),
            output=rebuilt_output(options.output, output),
            forward=forward,
        )
        job.absent_allowed = True  # it was, or there would be no file
        checks = [_same_origin(run.config, job), *_stored_checks(run, job)]
        if options.topk or options.outcomes:
            exact = run.config["made_by"] == job.made_by() and not _different(
                stored, job.identity, _COMPUTED
            )
            checks += HitChecker(run, job, hits, exact=exact).check()
    return Report(tuple(checks))


# how, not what: elsewhere the same values come out, but for the rounding
_COMPUTED = ("device", "layout", "kernels")


def _different(stored: dict[str, Any], now: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [key for key in keys if stored.get(key) != now.get(key)]


def _same_origin(config: dict[str, Any], job: Job) -> Check:
    """Compare model, data and layers by their hashes; the options are those of the file.

    The graph is compared where the same versions traced it: others may name its operations
    otherwise.
    """
    made_by = job.made_by()
    keys = job.identity.keys() - _COMPUTED - job.options.as_dict().keys()
    if _different(config["made_by"], made_by, ("fastconv", "torch")):
        keys -= {"graph"}
    different = _different(config["fingerprint"], job.identity, sorted(keys))
    detail = f"{', '.join(different)} differ" if different else "model, data and options as stored"
    return Check("fingerprint", not different, detail)


def _stored_checks(run: Run, job: Job) -> Iterator[Check]:
    """What can be told without running the network."""
    damaged = run.damaged()
    yield Check(
        "checksums", not damaged, f"of {', '.join(damaged)} differ" if damaged else "all agree"
    )
    for target in (planned.target for planned in job.layers):
        layer = run[target.info.name]
        if target.weight is not None:
            weight = target.weight.float().cpu().numpy()
            same = layer.weight is not None and np.array_equal(layer.weight, weight, equal_nan=True)
            yield Check(
                f"{target.info.name} weights", same, "those of the model" if same else "differ"
            )
        if job.options.stats:
            yield _consistent_stats(layer, job.options.hit_sets)
            for condition in run.conditions:
                check = _consistent_stats(layer.condition(condition), job.options.hit_sets)
                yield replace(check, name=f"{check.name} under {condition}")


def _consistent_stats(layer: Layer, hit_sets: Mapping[str, bool]) -> Check:
    raw = layer.result()
    mean, var = mean_and_var(raw.stats["sum"], raw.stats["sumsq"], raw.stats["count"])
    wrong = [
        what
        for what, value in (("mean", mean), ("var", var), ("std", np.sqrt(var)))
        if not np.array_equal(layer.stats[what], value, equal_nan=True)
    ]
    if raw.histogram is not None and not np.array_equal(raw.histogram.sum(1), raw.stats["count"]):
        wrong.append("histogram")
    seen = raw.stats["count"] > 0
    lowest, highest = (np.where(seen, raw.stats[name], np.nan) for name in ("min", "max"))
    for name, largest in hit_sets.items():
        extreme, words = (highest, "max") if largest else (lowest, "min")
        if not np.array_equal(getattr(layer, name).values[:, 0], extreme, equal_nan=True):
            wrong.append(f"{words} and first of {name}")
    if raw.samples_max is not None and raw.samples_mean is not None:
        best = np.full(len(highest), np.nan, np.float32)
        for rows in raw.samples_max.blocks:
            best = np.fmax(best, np.fmax.reduce(rows[()], 0))
        if not np.array_equal(best, highest, equal_nan=True):
            wrong.append("max and that of the samples")
        if not raw.stats["nonfinite"].any() and not _same_mean(raw.samples_mean, mean):
            wrong.append("mean and that of the samples")
    detail = f"{', '.join(wrong)} disagree" if wrong else "mean, variance, counts and extrema agree"
    return Check(f"{layer.name} statistics", not wrong, detail)


def _same_mean(means: Rows, mean: np.ndarray) -> bool:
    """Whether the means [N, C] of samples, rounded to float32, have these means [C]."""
    total, size, count = np.zeros(len(mean)), np.zeros(len(mean)), 0
    for rows in means.blocks:
        kept = np.asarray(rows[()], np.float64)
        kept = kept[~np.isnan(kept).all(1)]  # without skipped samples
        total, size = total + kept.sum(0), size + np.abs(kept).sum(0)
        count += len(kept)
    return count == 0 or bool((np.abs(total - mean * count) <= 1e-6 * size + 1e-30).all())
