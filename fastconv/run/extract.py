"""`extract`: one pass over a model and a data set, one HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastconv.data import open_data
from fastconv.errors import InputError, OutputError
from fastconv.run.allocator import freed_memory_kept
from fastconv.run.condition import conditions_of, descriptions
from fastconv.run.fingerprint import require_equal
from fastconv.run.job import Job
from fastconv.run.loop import measure, refuse_skipped
from fastconv.run.options import Options
from fastconv.run.outcomes import describe_output
from fastconv.run.transfer import on_device
from fastconv.store.parts import PartsFolder, remove_parts
from fastconv.store.reader import Run, open_run
from fastconv.store.writer import write_run


def extract(
    model: nn.Module,
    data: Any,
    out: str | os.PathLike[str],
    *,
    layers: Any = None,
    stage: str = "conv",
    topk: int = 9,
    hits_per_sample: int = 1,
    order: str = "largest",
    stats: bool = True,
    quantiles: bool = True,
    patches: bool = True,
    samples: bool = False,
    maps: Any = None,
    maps_dtype: str = "rounded",
    normalize: str | None = None,
    conditions: Mapping[str, Any] | None = None,
    outcomes: bool = False,
    output: Any = None,
    on_error: str = "raise",
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    backend: str = "auto",
    resume: bool = True,
    overwrite: bool = False,
    shard: tuple[int, int] | None = None,
    progress: bool = True,
) -> Run:
    """Measure every filter of the chosen layers over a data set, into one HDF5 file.

    The same call on a finished file returns it at once; after a kill it goes on where it was.

    Args:
        model: any module; it runs in eval mode without gradients and is left as it was found.
        data: a map-style data set giving `x`, `(x, y)` or a dict; a tensor [N, C, ...]; or a
            `DataLoader`, whose data set is read in order of index.
        out: the file to make.
        layers: names, globs, module types or a mix; default every convolution.
        stage: "conv" (output of the convolution, bias included), "norm" or "act" (after the
            normalisation, or the activation, that follows it).
        topk: hits kept per filter; 0 keeps none.
        hits_per_sample: hits that one sample may contribute; no two of them start nearer than half
            a receptive field.
        order: "largest" or "smallest" values first.
        stats: count, mean, variance, extrema, share of positive values, non-finite values.
        quantiles: histograms, from which any quantile follows with a stated error.
        patches: the picture of every hit.
        samples: keep max and mean of every (sample, filter).
        maps: sample indices, a slice or "all": keep their activation maps.
        maps_dtype: of the maps on disk. "rounded": float32 of which 10 bits of the mantissa are
            kept (7 under bfloat16), 1 to 1.6 bytes a value; "exact": float32; "float16":
            infinite beyond 65504; "uint8": 256 levels from the minimum to the maximum of each
            (sample, filter), where infinities become these extrema and NaN the minimum.
        normalize: of the maps, and of nothing else: a mode of `fastconv.channel_normalize`.
            "instance", "l1", "l2" (of each sample and filter) and "batchnorm" (that follows the
            convolution) are applied as maps are written; "zscore" and "minmax" take the
            statistics of the data set, so `layer.map()` applies them: the file keeps raw values.
        conditions: by name, changes of the input batch, such as those of `fastconv.perturb`: the
            same samples are measured changed, too, in the same pass. Any `change(batch, samples)`
            does that gives a batch of the same shape; the file knows it by its name.
        outcomes: keep label, prediction, confidence and correctness of every sample.
        output: where the class scores [n, K] are in the model's output: a name or index in a dict
            or tuple, or a function of it; needed where the output is no tensor.
        on_error: of a sample that cannot be read, or does not fit the others: "raise", or "skip":
            it is left out of everything (NaN in `samples`, no maps) and listed in the file.
        batch_size: samples per forward; also the unit of work that is never split.
        num_workers: processes that read the data set; the result does not depend on it.
        device: where the model runs; default where it is.
        dtype: run the forward under autocast to this type; default as the model is.
        backend: of the reductions: "auto" or a name from `fastconv.backends()`.
        resume: continue from the finished parts of an earlier call; False drops them.
        overwrite: replace an existing result, and drop its parts.
        shard: (index, count): measure only that share; join the results with `fastconv.merge`.
        progress: show samples done, samples/s and the time left.

    Returns:
        The finished run, opened.

    Raises:
        InputError: arguments, layers or data that cannot be used.
        FingerprintError: `out`, or its parts, were made by another model, data set or options.
        OutputError: `out` cannot be written, or another process is writing it.

    Memory:
        Does not grow with the number of samples, whatever is kept.
    """
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error must be raise or skip, got {on_error!r}")
    source = open_data(data, skip=on_error == "skip")
    changes = conditions_of(conditions)
    options = Options.create(
        length=len(source),
        stage=stage,
        topk=topk,
        hits_per_sample=hits_per_sample,
        order=order,
        stats=stats,
        quantiles=quantiles,
        patches=patches,
        samples=samples,
        maps=maps,
        maps_dtype=maps_dtype,
        normalize=normalize,
        batch_size=batch_size,
        dtype=dtype,
        backend=backend,
        shard=shard,
        outcomes=outcomes,
        output=describe_output(output),
        conditions=descriptions(changes),
    )
    out = Path(out)
    if not out.parent.is_dir():
        raise OutputError(f"there is no folder {out.parent}; make it first")
    with freed_memory_kept(), on_device(model, device) as where:
        job = Job(model, source, options, layers, where, conditions=changes, output=output)
        if out.exists() and not overwrite:
            return _finished(out, job)
        with PartsFolder(out) as folder:
            if out.exists() and not overwrite:  # by another process, meanwhile
                folder.remove()
                return _finished(out, job)
            _start(folder, job, resume=resume and not overwrite)
            started = _now()
            recording = measure(job, folder, num_workers, progress=progress)
            times = {"start_time": started, "end_time": _now()}
            write_run(
                out,
                job.config(),
                recording.results(),
                samples=recording.sample_table(source.keys()),
                overwrite=overwrite,
                times=times,
            )
            folder.remove()
    return Run(out)


def _finished(out: Path, job: Job) -> Run:
    run = open_run(out)
    require_equal(
        run.config["fingerprint"],
        job.identity,
        str(out),
        "choose another output, or overwrite it (overwrite=True, --overwrite)",
    )
    if not job.source.skip and run.samples is not None:
        refuse_skipped(run.samples.skipped, out)
    run.close()
    remove_parts(out)  # of a process that was killed between naming the file and removing them
    return run


def _start(folder: PartsFolder, job: Job, *, resume: bool) -> None:
    """Leave the folder with a manifest of this job, keeping only parts that belong to it."""
    wanted = {**job.identity, "made_by": job.made_by()}
    manifest = folder.manifest()
    if manifest is not None and resume:
        remedy = "run the same call as before, or start anew (resume=False, --no-resume)"
        require_equal(manifest, wanted, str(folder.path), remedy)
        return
    folder.clear()
    folder.write_manifest(wanted)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
