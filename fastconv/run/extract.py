"""`extract`: one pass over a model and a data set, one HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from fastconv.capture import Forward
from fastconv.engines.ranks import Rank, current_rank, on_several_machines
from fastconv.engines.ray import ray_tasks, run_tasks
from fastconv.errors import FileFormatError, InputError
from fastconv.run.job import Job
from fastconv.run.loop import measure
from fastconv.run.output_file import begin, finished, now, write
from fastconv.run.progress import Progress
from fastconv.run.recording import Recording
from fastconv.run.request import Request
from fastconv.run.shared import measure_shared
from fastconv.store.parts import PartsFolder
from fastconv.store.reader import Run
from fastconv.store.upload import Scratch, destination, exists, scratch_is_named


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
    columns: Sequence[str] = (),
    thumbnails: bool | None = None,
    forward: Forward | None = None,
    on_error: str = "raise",
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    backend: str = "auto",
    engine: str | None = None,
    resume: bool = True,
    overwrite: bool = False,
    shard: tuple[int, int] | None = None,
    progress: bool = True,
) -> Run:
    """Measure every filter of the chosen layers over a data set, into one HDF5 file.

    The same call on a finished file returns it at once; after a kill it goes on where it was.

    Args:
        model: any module; it runs in eval mode without gradients and is left as it was found. What
            `torch.compile` made of it runs as it was before.
        data: a map-style data set giving `x`, `(x, y)` or a dict; a tensor [N, C, ...]; or a
            `DataLoader`, whose data set is read in order of index. Where `x` is a tuple or dict of
            tensors, the model gets them as arguments or keywords; boxes and pictures are of the
            first. Waveforms may be [N, samples].
        out: the file to make, or a URL of fsspec (extra `[remote]`): the run then grows in a folder
            of `$FASTCONV_SCRATCH` (`~/.cache/fastconv`), and its file is put there once whole.
        layers: names, globs, module types or a mix; default every convolution.
        stage: "conv" (output of the convolution, bias included), "norm" or "act" (after the
            normalisation, or the activation, that follows it).
        topk: hits kept per filter (of "both" orders, in each); 0 keeps none.
        hits_per_sample: hits that one sample may contribute; no two of them start nearer than half
            a receptive field.
        order: of the hits: "largest" values first, "smallest", or "both": `layer.topk` holds the
            largest, and `layer.bottomk` as many of the smallest.
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
        outcomes: keep label, prediction, confidence and correctness of every sample; for each class
            where labels are vectors of 0 and 1 (docs/data.md).
        output: where the class scores [n, K] are in the model's output: a name or index in a dict
            or tuple, or a function of it; needed where the output is no tensor.
        columns: names of numbers and texts to keep of every sample, which must be a dict (or hold
            one): `run.columns`.
        thumbnails: keep a reduced picture of every sample that has a hit or maps (images alone);
            default where those of all samples have at most 32 MiB. They are read once more.
        forward: `forward(model, batch)` instead of `model(batch)`: lists of images, other keywords.
        on_error: of a sample that cannot be read, or does not fit the others: "raise", or "skip":
            it is left out of everything (NaN in `samples`, no maps) and listed in the file. And of
            a layer that the model does not call for some batch, though it did in the probe: that
            batch is left out of its values, as the count says (NaN in `samples` and maps).
        batch_size: samples per forward; also the unit of work that is never split.
        num_workers: processes that read the data set; the result does not depend on it.
        device: where the model runs; default where it is.
        dtype: run the forward under autocast to this type; default as the model is.
        backend: of the reductions: "auto" or a name from `fastconv.backends()`.
        engine: None: in this process, or in all that `torchrun` started or that form an initialised
            process group, which share the work through the folder of `out`. "ray" or "ray:N": in
            N tasks of Ray. "local": in this process, whatever started it.
        resume: continue from the finished parts of an earlier call; False drops them.
        overwrite: replace an existing result, and drop its parts.
        shard: (index, count): measure only that share; join the results with `fastconv.merge`.
        progress: show samples done, samples/s and the time left.

    Returns:
        The finished run, opened.

    Raises:
        InputError: arguments, layers or data that cannot be used.
        FingerprintError: `out`, or its parts, were made by another model, data set or options.
        OutputError: `out` cannot be written, another process is writing it alone, or several are
            to share a file system that has no locks.

    Memory:
        Does not grow with the number of samples, whatever is kept.
    """
    place, url = destination(out)
    request = Request(
        model=model,
        data=data,
        out=place,
        layers=layers,
        conditions=conditions,
        output=output,
        forward=forward,
        on_error=on_error,
        device=device,
        num_workers=num_workers,
        progress=progress,
        asked={
            "stage": stage,
            "topk": topk,
            "hits_per_sample": hits_per_sample,
            "order": order,
            "stats": stats,
            "quantiles": quantiles,
            "patches": patches,
            "samples": samples,
            "maps": maps,
            "maps_dtype": maps_dtype,
            "normalize": normalize,
            "batch_size": batch_size,
            "dtype": dtype,
            "backend": backend,
            "shard": shard,
            "outcomes": outcomes,
            "thumbnails": thumbnails,
            "columns": columns,
        },
    )
    request.check()
    started = now()
    tasks = ray_tasks(engine)
    rank = current_rank() if engine is None and shard is None else None
    if shard is not None and tasks is not None:
        raise InputError("a shard is the work of one process; give no engine with shard=")
    if tasks is None and rank is None:
        run = partial(_in_one_process, request, started, resume=resume, overwrite=overwrite)
    else:
        run = partial(_in_several, request, started, rank, tasks, anew=overwrite or not resume)
    if url is None:
        return run()
    if (tasks is not None or on_several_machines(rank)) and not scratch_is_named():
        raise InputError(
            f"processes of several machines share the folder where {url} grows: set "
            "FASTCONV_SCRATCH to a folder that all of them see"
        )
    return _at_url(url, request, run, overwrite=overwrite)


def _at_url(url: str, request: Request, run: Callable[[], Run], *, overwrite: bool) -> Run:
    """Make the file of a run in the folder of scratch, and put it to the URL."""
    with Scratch(request.out) as scratch:
        replace_file = overwrite
        if not overwrite and exists(url):
            try:
                with request.job() as job:
                    found = finished(url, job)
                scratch.remove()
                return found
            except FileFormatError:
                if not request.out.exists():
                    raise
                replace_file = True  # it was cut off as the finished file was put there
        run().close()
        scratch.put(url, overwrite=replace_file)
    return Run(url)


def _in_one_process(request: Request, started: str, *, resume: bool, overwrite: bool) -> Run:
    out = request.out
    with request.job() as job:
        if out.exists() and not overwrite:
            return finished(out, job)
        with PartsFolder(out) as folder:
            if out.exists() and not overwrite:  # by another process, meanwhile
                folder.remove()
                return finished(out, job)
            begin(folder, job, resume=resume and not overwrite)
            with measure(job, folder, request.num_workers, progress=request.progress) as recording:
                write(out, job, recording, started, overwrite=overwrite)
            folder.remove()
    return Run(out)


def _in_several(
    request: Request, started: str, rank: Rank | None, tasks: int | None, *, anew: bool
) -> Run:
    """Measure as one of several processes, or start these, and write the file once."""
    out = request.out
    if anew:
        raise InputError(
            "overwrite=True and resume=False are for one process, since another may be at work "
            f"already; remove {out} and {out}.parts first"
        )
    with request.job(rank) as job:
        if out.exists():
            return finished(out, job)
        with PartsFolder(out, shared=True) as folder:
            with folder.alone("start"):
                begin(folder, job, resume=True)
            if rank is not None:
                measure_shared(job, folder, rank, request.num_workers, progress=request.progress)
            else:
                _measure_in_tasks(request, job, folder, tasks)
            with folder.alone("assemble"):
                if not out.exists():
                    job.units.learn_end(folder)
                    recording = Recording(job, folder, job.units.own)
                    write(out, job, recording, started, overwrite=False)
                    folder.remove()
        return finished(out, job)


def _measure_in_tasks(request: Request, job: Job, folder: PartsFolder, tasks: int | None) -> None:
    work = replace(request, progress=False).measure_share
    with Progress(job.source.length, enabled=request.progress) as bar:

        def show() -> None:
            job.units.learn_end(folder)
            bar.update(job.units.samples_done(folder) - bar.done)

        run_tasks(work, tasks or None, int(job.device.type == "cuda"), show)
