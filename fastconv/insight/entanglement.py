"""How much the stages of a layer, batch statistics and dropout change what a filter ranks high."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.errors import InputError
from fastconv.insight.reading import COLUMNS as AT_ONCE
from fastconv.insight.reading import Table, in_order, kept_samples, sample_count, summary
from fastconv.insight.responses import topk_overlap
from fastconv.insight.statistics import correlation, ranks

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("layer", "filter", "stage", "rank_correlation", "topk_overlap", "pass_variance")


def entanglement(
    runs: Mapping[str, Any | Sequence[Any]], *, k: int = 9, of: str = "max"
) -> pd.DataFrame:
    """Compare what filters rank high in several runs of one model over the same samples.

    Args:
        runs: name -> run, each with samples=True: such as "conv", "norm", "act" (by stage=),
            "train" (by forward=batch_moments), "dropout". Several passes of a random model are a
            list of runs (by forward=DropoutPass(i)); their mean is compared. The first is the
            reference.
        k: samples that count as ranked high.
        of: what a response is: the "max" over the positions of a sample, or their "mean".

    Returns:
        A row a (layer, filter, stage), stage being the name of each run but the first:
        `rank_correlation` with the reference (Spearman's over samples; 0 where one of both is
        constant), `topk_overlap` (share of the k highest samples that stay), `pass_variance`
        (share of the variance that comes from passes, 0 for one run). Layers that a run lacks, and
        filters that are constant in both, are left out.

    Raises:
        InputError: fewer than two runs, of other samples, or without layers in common.
    """
    if not isinstance(runs, Mapping):
        kind = type(runs).__name__
        raise InputError(
            f'runs must be a mapping such as {{"conv": run, "act": run}}, got a {kind}'
        )
    passes: dict[str, list[Any]] = {
        name: list(run) if isinstance(run, list | tuple) else [run] for name, run in runs.items()
    }
    if len(passes) < 2 or not all(passes.values()):
        raise InputError(f"entanglement compares two runs or more, got {sorted(passes)}")
    (_, first), *others = passes.items()
    count = sample_count(first[0])
    kept = np.ones(count, bool)
    for run in (run for found in passes.values() for run in found):
        if sample_count(run) != count:
            raise InputError(f"runs of other samples: {sample_count(run)} and {count} of them")
        kept &= kept_samples(run, count)
    layers = list(first[0].layers)
    table = Table(*COLUMNS)
    for stage, found in others:
        shared = [name for name in layers if all(name in run.layers for run in found)]
        if not shared:
            raise InputError(f"{stage!r} has no layer in common with the first run")
        for name in shared:
            reference, _ = _mean_and_share(first, name, of, kept)
            values, share = _mean_and_share(found, name, of, kept)
            if values.shape != reference.shape:
                raise InputError(
                    f"{name} has {values.shape[1]} filters in {stage!r}, {reference.shape[1]} "
                    "in the first run"
                )
            for start in range(0, values.shape[1], AT_ONCE):
                part = slice(start, start + AT_ONCE)
                columns, compared = _compare(reference[:, part], values[:, part], k)
                at = start + columns
                table.add(name, filter=at, stage=stage, pass_variance=share[at], **compared)
    return in_order(table.frame(), layers)


def _mean_and_share(
    passes: list[Any], name: str, of: str, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over passes [n, C], and the share of the variance [C] that lies between passes."""
    mean = summary(passes[0][name], of)[kept].astype(np.float64)
    squares = np.zeros_like(mean)  # of deviations from the running mean (Welford)
    for number, run in enumerate(passes[1:], 2):
        values = summary(run[name], of)[kept]
        before = values - mean
        mean = mean + before / number
        squares += before * (values - mean)
    within = squares.mean(0) / len(passes)
    whole = within + mean.var(0)
    return mean, within / np.where(whole > 0, whole, 1)


def _compare(
    before: np.ndarray, after: np.ndarray, k: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Filters [c] without missing values that vary in either, and their columns."""
    finite = np.isfinite(before).all(0) & np.isfinite(after).all(0)
    varied = ((before != before[:1]) | (after != after[:1])).any(0)
    columns = np.flatnonzero(finite & varied)
    before, after = before[:, columns], after[:, columns]
    return columns, {
        "rank_correlation": correlation(ranks(before), ranks(after)),
        "topk_overlap": topk_overlap(_highest(before, k), _highest(after, k)),
    }


def _highest(values: np.ndarray, k: int) -> np.ndarray:
    """[C, k] rows with the largest values; ties go to the lower one."""
    return np.argsort(-values, axis=0, kind="stable")[:k].T
