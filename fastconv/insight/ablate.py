"""What a model loses without some of its filters."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fastconv.capture import CaptureTarget, Forward
from fastconv.errors import InputError
from fastconv.insight.passes import Pass, check_labels, modules_only, passing
from fastconv.insight.quality import Answers, changes
from fastconv.insight.replay import Recording
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.run.outcomes import Output, class_scores

VALUES = ("zero", "mean")


class _Ablation(NamedTuple):
    """Filters that are replaced at the same time."""

    layer: str  # as the table names it
    filter: int | str
    filters: Mapping[str, list[int]]


def ablate(
    model: nn.Module,
    data: Any,
    filters: Mapping[str, Iterable[int]],
    value: str = "zero",
    labels: Any = None,
    *,
    together: bool = False,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    forward: Forward | None = None,
    output: Output = None,
) -> pd.DataFrame:
    """Measure a classifier with and without filters, on the same samples.

    Of every batch the forward runs once, and then once more for each ablation from the layer on:
    see docs/insight-structure.md. The model is left as it was found.

    Args:
        model: a classifier that returns scores [N, classes], or [N, 1] for two classes; of several
            labels a sample one logit for each class.
        data: as `fastconv.extract` takes it.
        filters: the filters of each layer, {"conv1": [0, 3]}. A layer is any module call whose
            output is [N, C, *spatial]; that output is changed, so name the activation
            ("relu1") to remove what the network reads after a normalisation.
        value: what a filter gives instead: "zero", or its "mean" over all samples and positions
            (one more pass).
        labels: [N] integers, or [N, classes] of 0 and 1 (-1 or NaN: missing); default those of the
            data set.
        together: replace all filters at once, instead of one at a time.
        batch_size, num_workers, device, forward, output: as for `fastconv.extract`.

    Returns:
        One row a (layer, filter, class), classes as they occur in the labels:

        - layer, filter, class. Together: layers joined by " + ", and "conv1: 0, 3" as filter.
        - accuracy: of the model over all samples, the same for every class; precision and recall
          of the class, 0 where nothing is predicted as it; confidence: mean probability of the
          prediction over the samples of the class. All as the model is. Of several labels a sample
          accuracy is that of the class too, and confidence the mean probability of the class.
          Scores of NaN are a wrong answer of confidence 0.
        - accuracy_without, precision_without, ...: the same with the filter replaced.
        - accuracy_change, accuracy_low, accuracy_high, ...: without minus with, and its 95 %
          interval for these pairs of answers; formulas in docs/insight-structure.md.

        `table.attrs` has "replayed" and "rerun": forwards that ran from the layer on, and whole.

    Raises:
        InputError: no labels, or some that the model has no class for; filters that do not exist;
            a model that returns something else.
        LayerError: layers that do not exist.

    Memory:
        The activations of one batch; 12 bytes a sample and ablation.
    """
    if value not in VALUES:
        raise InputError(f"value must be {' or '.join(VALUES)}, got {value!r}")
    if not isinstance(filters, Mapping) or not filters:
        raise InputError(f"filters must be a mapping such as {{'conv1': [0, 3]}}, got {filters!r}")
    options: Any = {"batch_size": batch_size, "num_workers": num_workers, "device": device}
    with passing(model, data, list(filters), forward=forward, **options) as reading:
        if labels is None:
            reading.source.require_labels()
        given = None if labels is None else check_labels(labels, len(reading.source))
        modules_only(reading.targets)
        chosen = _check_filters(reading.targets, filters)
        ablations = list(_ablations(chosen, together=together))
        instead = _means(reading) if value == "mean" else None
        whole, without = Answers(), [Answers() for _ in ablations]
        counts = np.zeros(2, int)
        for rows, x, found in reading.batches():
            recording = Recording(reading.network, reading.targets, x)
            label = _of_batch(given, found, rows)
            whole.add(class_scores(recording.output, output, len(rows)), label)
            for ablation, answers in zip(ablations, without, strict=True):
                found_without = recording.replay(_changes(ablation, instead))
                answers.add(class_scores(found_without, output, len(rows)), label)
            counts += recording.replayed, recording.rerun
    tables = [
        pd.DataFrame({"layer": a.layer, "filter": a.filter, **changes(whole, answers)})
        for a, answers in zip(ablations, without, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    table.attrs = {"replayed": int(counts[0]), "rerun": int(counts[1])}
    return table


def _of_batch(given: np.ndarray | None, found: Tensor | None, rows: list[int]) -> np.ndarray:
    if given is not None:
        return given[rows]
    if found is None:
        raise InputError("the data set has no labels; give labels=[N], or samples (x, y)")
    return found.cpu().numpy()


def _check_filters(
    targets: Iterable[CaptureTarget], filters: Mapping[str, Iterable[int]]
) -> dict[str, list[int]]:
    """The filters of each layer, in forward order of the layers."""
    found = {}
    for target in targets:
        name, channels = target.info.name, target.info.channels
        try:
            found[name] = [operator.index(filter) for filter in filters[name]]
        except TypeError:
            raise InputError(
                f"the filters of {name} must be integers in a list such as [0, 3], got "
                f"{filters[name]!r}"
            ) from None
        wrong = [filter for filter in found[name] if not 0 <= filter < channels]
        if wrong:
            raise InputError(f"{name} has filters 0 to {channels - 1}, got {wrong[0]}")
        if not found[name]:
            raise InputError(f"no filters of {name} are named; give a list such as [0, 3]")
    return found


def _ablations(filters: Mapping[str, list[int]], *, together: bool) -> Iterator[_Ablation]:
    if together:
        text = "; ".join(f"{name}: {', '.join(map(str, fs))}" for name, fs in filters.items())
        yield _Ablation(" + ".join(filters), text, filters)
        return
    for name, own in filters.items():
        for filter in own:
            yield _Ablation(name, filter, {name: [filter]})


def _changes(ablation: _Ablation, instead: Mapping[str, Tensor] | None) -> dict[str, Any]:
    return {
        name: partial(_replace, own, None if instead is None else instead[name])
        for name, own in ablation.filters.items()
    }


def _replace(filters: list[int], means: Tensor | None, output: Tensor) -> None:
    for filter in filters:
        output[:, filter] = 0 if means is None else means[filter]


def _means(reading: Pass) -> dict[str, Tensor]:
    """The mean of every filter over all samples and positions, {layer: [C]}."""
    names = [t.info.name for t in reading.targets]
    sums = [torch.zeros(t.info.channels, dtype=torch.float64) for t in reading.targets]
    count = [0] * len(names)

    def add(i: int, output: Tensor, rows: list[int]) -> None:
        reduced = channel_reduce(output)
        sums[i] += reduced.sum.sum(0).cpu()
        count[i] += reduced.count * len(rows)

    reading.run(add)
    return {n: (s / max(1, c)).float() for n, s, c in zip(names, sums, count, strict=True)}
