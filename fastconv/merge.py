"""`merge`: the results of shards, joined into the result of one run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from fastconv.errors import InputError
from fastconv.fingerprint import require_equal
from fastconv.measure.layer_state import LayerState, Measures
from fastconv.records import LayerResult, Maps, Rows, SampleTable
from fastconv.store.layer import Layer
from fastconv.store.reader import Run, open_run
from fastconv.store.writer import write_run


def merge(
    parts: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Run:
    """Join finished shards of one run; the result is that of the run in one piece, bit for bit.

    Args:
        parts: the files that `extract(..., shard=(i, n))` made, all n of them, in any order.
        out: the file to make.
        overwrite: replace an existing file.

    Raises:
        FileFormatError: a part is no complete fastconv file.
        FingerprintError: parts of different models, data sets or options.
        InputError: shards that are missing, double, or none at all.
        OutputError: `out` exists or cannot be written.
    """
    with ExitStack() as stack:
        runs = [stack.enter_context(open_run(path)) for path in parts]
        runs = _in_order(runs)
        first = runs[0].config
        for run in runs[1:]:
            remedy = "only shards of one run can be merged"
            for key in ("fingerprint", "made_by"):
                require_equal(
                    _unsharded(run.config[key]), _unsharded(first[key]), str(run.path), remedy
                )
        config = {**first, "fingerprint": {**first["fingerprint"], "shard": None}}
        write_run(
            out,
            config,
            (_merged(runs, name) for name in runs[0].layers),
            samples=_sample_table(runs),
            overwrite=overwrite,
            times={
                "start_time": min(str(r.attributes.get("start_time")) for r in runs),
                "end_time": max(str(r.attributes.get("end_time")) for r in runs),
            },
        )
    return Run(out)


def _unsharded(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "shard"}


def _in_order(runs: list[Run]) -> list[Run]:
    """By shard; every shard once."""
    if not runs:
        raise InputError("there is nothing to merge: give the files of all shards")
    shards = [run.config["fingerprint"].get("shard") for run in runs]
    for run, shard in zip(runs, shards, strict=True):
        if shard is None:
            raise InputError(f"{run.path} is a whole run, not a shard; nothing needs merging")
    count = shards[0][1]
    found = sorted((index, of) for index, of in shards)
    if found != [(i, count) for i in range(count)]:
        have = ", ".join(f"{i}/{n}" for i, n in found)
        raise InputError(
            f"the shards must be 0/{count} to {count - 1}/{count}, each once; got {have}"
        )
    return sorted(runs, key=lambda run: run.config["fingerprint"]["shard"])


def _merged(runs: list[Run], name: str) -> LayerResult:
    layers = [run[name] for run in runs]
    options = runs[0].config["fingerprint"]
    measures = Measures(
        stats=options["stats"],
        quantiles=options["quantiles"],
        topk=options["topk"],
        hits_per_sample=options["hits_per_sample"],
        largest=options["order"] == "largest",
        patches=options["patches"],
    )
    state = LayerState(layers[0].info, measures, tuple(runs[0].config["input_size"]))
    for layer in layers:
        state.merge(layer.result())
    result = state.result(layers[0].weight)
    if options["samples"]:
        blocks = [layer.samples for layer in layers]
        count = sum(len(block.max) for block in blocks)
        shape = (count, state.info.channels)
        result.samples_max = Rows(shape, (block.max for block in blocks))
        result.samples_mean = Rows(shape, (block.mean for block in blocks))
    if options["maps"]:
        result.maps = _maps(layers)
    return result


def _maps(layers: list[Layer]) -> Maps:
    held = [layer.maps() for layer in layers if "activations" in layer.holds]
    samples = np.concatenate([m.samples for m in held])
    shape = (len(samples), *held[0].activation.shape[1:])

    def blocks() -> Iterator[Any]:
        for maps in held:
            yield from maps.activation.blocks

    return Maps(held[0].storage, held[0].keepbits, samples, Rows(shape, blocks()))


def _sample_table(runs: list[Run]) -> SampleTable | None:
    tables = [run.samples for run in runs]
    if any(table is None for table in tables):
        return None
    keys = None if tables[0].keys is None else [k for table in tables for k in table.keys]
    labels = None if tables[0].labels is None else np.concatenate([t.labels for t in tables])
    return SampleTable(sum(table.count for table in tables), keys, labels)
