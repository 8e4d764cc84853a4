"""`merge`: the results of shards, joined into the result of one run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.errors import InputError, OutputError
from fastconv.format.result import LayerResult, Maps, Rows, SampleTable
from fastconv.measure.layer_state import LayerState
from fastconv.run.fingerprint import require_equal
from fastconv.run.layer_sink import measures
from fastconv.run.options import Options
from fastconv.run.sample_rows import joined
from fastconv.run.thumbnails import are_kept
from fastconv.store.reader import Run, open_run
from fastconv.store.upload import Scratch, destination, exists, put
from fastconv.store.writer import write_run


def merge(
    parts: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Run:
    """Join finished shards of one run; the result is that of the run in one piece, bit for bit.

    Args:
        parts: the files that `extract(..., shard=(i, n))` made, all n of them, in any order; paths,
            or URLs of fsspec (extra `[remote]`).
        out: the file to make, or a URL, where it is put once it is whole.
        overwrite: replace an existing file.

    Raises:
        FileFormatError: a part is no complete fastconv file.
        FingerprintError: parts of different models, data sets or options.
        InputError: shards that are missing, double, or none at all.
        OutputError: `out` exists or cannot be written.
    """
    if isinstance(parts, str | os.PathLike):
        raise InputError(f"parts must be a list of files, got {os.fspath(parts)!r} alone")
    place, url = destination(out)
    if url is None:
        _write_merged(parts, place, overwrite=overwrite)
        return Run(place)
    if not overwrite and exists(url):
        raise OutputError(f"{url} exists already; choose another name or allow overwriting it")
    folder = place.parent / "merged"  # beside what an unfinished run to that URL has there
    with Scratch(place):
        folder.mkdir(exist_ok=True)
        try:
            _write_merged(parts, folder / place.name, overwrite=True)
            put(folder / place.name, url, overwrite=overwrite)
            shutil.rmtree(folder, ignore_errors=True)  # it stands at the URL, whatever is left
        finally:
            with suppress(OSError):  # where something is kept
                folder.rmdir()
    return Run(url)


def _write_merged(parts: Sequence[str | os.PathLike[str]], out: Path, *, overwrite: bool) -> None:
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
            graph=runs[0].graph,
            overwrite=overwrite,
            times={
                "start_time": min(str(r.attributes.get("start_time")) for r in runs),
                "end_time": max(str(r.attributes.get("end_time")) for r in runs),
            },
        )


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
    result = _joined(runs[0], (run[name].result() for run in runs))
    for condition in runs[0].conditions:
        parts = (run[name].condition(condition).result() for run in runs)
        result.conditions[condition] = _joined(runs[0], parts)
    return result


def _joined(first: Run, parts: Iterable[LayerResult]) -> LayerResult:
    """One layer of all shards, read one after the other."""
    options = _options(first)
    state, samples_max, samples_mean, maps = None, [], [], []
    for part in parts:
        if state is None:
            size = tuple(first.config["input_size"])
            state, weight = LayerState(part.info, measures(options), size), part.weight
        state.merge(part)
        samples_max.append(part.samples_max)  # read as they are written
        samples_mean.append(part.samples_mean)
        maps.append(part.maps)
    assert state is not None
    result = state.result(weight)
    result.samples_max = _joined_rows(samples_max)
    result.samples_mean = _joined_rows(samples_mean)
    result.maps = _joined_maps(maps)
    return result


def _options(run: Run) -> Options:
    stored = run.config["fingerprint"]
    return Options.from_stored(stored)


def _joined_rows(parts: list[Rows | None]) -> Rows | None:
    """The rows of all parts, one after the other; None where none has any."""
    held = [rows for rows in parts if rows is not None]
    if not held:
        return None
    shape = (sum(rows.shape[0] for rows in held), *held[0].shape[1:])
    return Rows(shape, chain.from_iterable(rows.blocks for rows in held))


def _joined_maps(parts: list[Maps | None]) -> Maps | None:
    held = [maps for maps in parts if maps is not None]
    activation = _joined_rows([maps.activation for maps in held])
    if activation is None:
        return None
    return replace(
        held[0],
        samples=np.concatenate([maps.samples for maps in held]),
        activation=activation,
        scale=_joined_rows([maps.scale for maps in held]),
        offset=_joined_rows([maps.offset for maps in held]),
    )


def _sample_table(runs: list[Run]) -> SampleTable | None:
    tables = [table for run in runs if (table := run.samples) is not None]
    if len(tables) < len(runs):
        return None
    keys = [table.keys for table in tables if table.keys is not None]
    labels = [table.labels for table in tables if table.labels is not None]
    return SampleTable(
        sum(table.count for table in tables),
        [key for part in keys for key in part] if keys else None,
        np.concatenate(labels) if labels else None,
        [index for table in tables for index in table.skipped],
        outcomes=_joined_columns([table.outcomes for table in tables]),
        columns={n: joined([np.asarray(t.columns[n]) for t in tables]) for n in tables[0].columns},
        classes=tables[0].classes,
        thumbnails=_thumbnails(runs),
    )


def _thumbnails(runs: list[Run]) -> dict[int, np.ndarray]:
    """Pictures of the samples that are still among the best, or have maps."""
    config, options = runs[0].config, _options(runs[0])
    length, size = config["fingerprint"]["data"]["length"], config["input_size"]
    if not size or not are_kept(options, length, size):
        return {}
    mapped, all_samples = options.maps, range(length)
    best = set(mapped if isinstance(mapped, tuple) else all_samples if mapped else ())
    for name in runs[0].layers:
        state: LayerState | None = None
        for run in runs:
            hits = LayerResult(run[name].info, None)
            for kept in options.hit_sets:
                found = getattr(run[name], kept)
                arrays = {"value": found.values, "sample": found.sample, "position": found.position}
                hits.set_hits(kept, {f: a.copy() for f, a in arrays.items()})  # theirs: read-only
            if state is None:
                asked = replace(measures(_options(run)), patches=False)
                state = LayerState(hits.info, asked, tuple(run.config["input_size"]))
            state.merge_hits(hits)
        assert state is not None
        for entries in state.hits.values():
            best |= set(entries.samples.flatten().tolist())
    pictures = ((sample, run.thumbnail(sample)) for run in runs for sample in sorted(best - {-1}))
    return {sample: picture for sample, picture in pictures if picture is not None}


def _joined_columns(parts: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
