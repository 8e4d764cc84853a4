"""`extract`: one pass over a model and a data set, one HDF5 file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastconv.capture import CaptureTarget, capture_forward, graph_signature, plan_capture
from fastconv.data import Samples, open_data
from fastconv.errors import FastconvError, FingerprintError, InputError, OutputError
from fastconv.feed import Feed
from fastconv.fingerprint import made_by, model_hash, require_equal
from fastconv.kept_maps import affines_that_follow
from fastconv.measure.patches import Display
from fastconv.options import Options
from fastconv.planner import FUSED, chosen_by, plan_kernels
from fastconv.progress import Progress
from fastconv.run_state import Batch, RunState
from fastconv.store.parts import PartsFolder, remove_parts
from fastconv.store.reader import Run, open_run
from fastconv.store.writer import write_run

_PROBED = 16  # samples whose values decide how images are displayed


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
    on_error: str = "raise",
    conditions: Any = None,
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
    if conditions is not None:
        raise InputError("conditions are not supported yet; transform the data set instead")
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error must be raise or skip, got {on_error!r}")
    source = open_data(data, skip=on_error == "skip")
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
    )
    out = Path(out)
    if not out.parent.is_dir():
        raise OutputError(f"there is no folder {out.parent}; make it first")
    with on_device(model, device) as place:
        job = Job(model, source, options, layers, place)
        if out.exists() and not overwrite:
            return _finished(out, job)
        with PartsFolder(out) as folder:
            if out.exists() and not overwrite:  # by another process, meanwhile
                folder.remove()
                return _finished(out, job)
            _start(folder, job, resume=resume and not overwrite)
            started = _now()
            job.run(folder, num_workers, progress=progress)
            times = {"start_time": started, "end_time": _now()}
            write_run(
                out,
                job.config(),
                job.state.results([t.weight for t in job.targets]),
                samples=job.state.sample_table(source.keys()),
                overwrite=overwrite,
                times=times,
            )
            folder.remove()
    return Run(out)


class Job:
    """One run of one model over one data set: what identifies it, and its work."""

    def __init__(
        self, model: nn.Module, source: Samples, options: Options, layers: Any, place: torch.device
    ):
        self.model, self.source, self.options, self.place = model, source, options, place
        first, _ = next(iter(source.batches([[source.first()]])))
        self.input_size = tuple(first.shape[2:])
        with self._autocast():
            targets, self.layout = self._plan(first, layers)
            self.targets = plan_kernels(targets, options, place)
            self.prepared = Feed(place, self.layout)  # a batch as the model gets it
            example = self.prepared(first)
            graph = graph_signature(model, example)
            names = [t.info.name for t in self.targets]
            affines = None
            if options.normalize == "batchnorm":
                affines = affines_that_follow(model, example, names)
        self.identity: dict[str, Any] = {
            "model": model_hash(model),
            "graph": graph,
            "data": source.fingerprint(),
            "layers": names,
            "device": place.type,
            "layout": str(self.layout).removeprefix("torch."),
            "kernels": [t.info.measured_by for t in self.targets],
            **options.as_dict(),
        }
        self._rows = options.batch_size  # samples at a time: fewer, where memory does not suffice
        self._new_state = partial(
            RunState,
            [t.info for t in self.targets],
            options,
            self.input_size,
            len(source),
            self._display(),
            affines,
        )
        self.state = self._new_state()

    def _plan(self, first: Tensor, layers: Any) -> tuple[list[CaptureTarget], torch.memory_format]:
        """What to capture, and the layout of the inputs.

        Images run channels_last: convolutions, batch norm and pooling are faster that way on the
        CPU (docs/benchmarks.md), tensor cores and TMA want it on a GPU. Unless the model has a
        `view` that such a layout breaks.
        """
        stage = self.options.stage
        if first.ndim == 4:
            with contextlib.suppress(RuntimeError):
                layout = torch.channels_last
                example = first.to(self.place).contiguous(memory_format=layout)
                return plan_capture(self.model, example, layers, stage), layout
        example = first.to(self.place)
        return plan_capture(self.model, example, layers, stage), torch.contiguous_format

    def config(self) -> dict[str, Any]:
        """What the file says of how it was made."""
        display = self.state.display
        fewer = {"samples_at_a_time": self._rows} if self._rows < self.options.batch_size else {}
        return {
            **fewer,
            "fingerprint": self.identity,
            "made_by": made_by(),
            "kernels_chosen_by": chosen_by(self.place),
            "model": type(self.model).__name__,
            "input_size": self.input_size,
            "display": None if display is None else {"low": display.low, "high": display.high},
        }

    def run(self, folder: PartsFolder, num_workers: int, *, progress: bool) -> None:
        """Measure the units that no part holds yet."""
        own = self.options.own_units(len(self.source))
        todo = self.state.resume(folder, own)
        if not self.source.skip:
            _refuse_skipped(self.state.skipped(), folder.path)
        if self.options.maps is not None:
            _announce(folder.path, *self.state.maps_size(todo), progress=progress)
        while True:
            try:
                self._measure_units(todo, own, num_workers, progress=progress)
                break
            except torch.OutOfMemoryError as error:
                self._take_fewer(error)
            torch.cuda.empty_cache()  # now that the error holds no tensors any more
            todo = self.state.resume(folder, own)
        if progress and (skipped := self.state.skipped()):
            why = self.source.skipped.get(skipped[0], f"sample {skipped[0]}")
            print(f"{len(skipped):,} samples were skipped: {why}", file=sys.stderr, flush=True)

    def _measure_units(
        self, todo: Sequence[int], own: range, num_workers: int, *, progress: bool
    ) -> None:
        units = self.options.units(len(self.source))
        samples = sum(len(units[u]) for u in own)
        left = sum(len(units[u]) for u in todo)
        batches = self.source.batches([units[u] for u in todo], num_workers)
        with (
            Progress(samples, enabled=progress, done=samples - left) as bar,
            _interruptible() as interrupted,
            self.state,
        ):
            for number, (inputs, labels) in zip(todo, batches, strict=True):
                self._measure(number, units[number], inputs, labels)
                bar.update(len(units[number]))
                if interrupted():
                    raise KeyboardInterrupt

    def _measure(self, number: int, unit: range, inputs: Tensor, labels: Tensor | None) -> None:
        kept = self.source.kept(unit)
        with self.state.unit(number, unit, kept, labels) as new_batch:
            for start in range(0, len(kept), self._rows):
                rows = slice(start, start + self._rows)
                piece = self.prepared(inputs[rows])
                self._forward_into(new_batch(kept[rows], piece), piece)

    def _forward_into(self, batch: Batch, inputs: Tensor) -> None:
        self.forward(
            inputs,
            lambda i, value: batch.take(i, value, self.targets[i]),
            lambda i, value: batch.convolve(i, value, self.targets[i]),
        )

    def _take_fewer(self, error: torch.OutOfMemoryError) -> None:
        """Halve the samples of a forward, and forget what no part holds: a unit is half taken."""
        if self._rows == 1:
            raise FastconvError(
                f"one sample is too much for the memory of {self.place}: "
                f"{str(error).splitlines()[0]}; run on another device"
            ) from error
        before, self._rows = self._rows, (self._rows + 1) // 2
        warnings.warn(
            f"{self.place} is out of memory: the model gets {self._rows} samples at a time from "
            f"now on, not {before}",
            stacklevel=2,
        )
        self.state = self._new_state()

    def forward(
        self,
        inputs: Tensor,
        on_output: Callable[[int, Tensor], None],
        on_input: Callable[[int, Tensor], Tensor | None],
    ) -> None:
        """One forward up to the deepest layer, which hands every layer's output over.

        Of the layers that run fused it hands the input over, as `capture_forward` says.
        """
        fused = {i for i, target in enumerate(self.targets) if target.info.measured_by == FUSED}
        with self._autocast():
            capture_forward(self.model, self.targets, inputs, on_output, fused, on_input)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.options.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.place.type, getattr(torch, self.options.dtype))

    def _display(self) -> Display | None:
        if not self.options.patches:
            return None
        n = len(self.source)
        chosen = sorted({round(i * (n - 1) / (_PROBED - 1)) for i in range(_PROBED)})
        probe = torch.cat([x for x, _ in self.source.batches([[i] for i in chosen])])
        return Display.choose(probe, self.source.input_dtype)


def _finished(out: Path, job: Job) -> Run:
    run = open_run(out)
    require_equal(
        run.config["fingerprint"],
        job.identity,
        str(out),
        "choose another output, or overwrite it (overwrite=True, --overwrite)",
    )
    if not job.source.skip and run.samples is not None:
        _refuse_skipped(run.samples.skipped, out)
    run.close()
    remove_parts(out)  # of a process that was killed between naming the file and removing them
    return run


def _start(folder: PartsFolder, job: Job, *, resume: bool) -> None:
    """Leave the folder with a manifest of this job, keeping only parts that belong to it."""
    wanted = {**job.identity, "made_by": made_by()}
    manifest = folder.manifest()
    if manifest is not None and resume:
        remedy = "run the same call as before, or start anew (resume=False, --no-resume)"
        require_equal(manifest, wanted, str(folder.path), remedy)
        return
    folder.clear()
    folder.write_manifest(wanted)


def _refuse_skipped(skipped: Sequence[int], where: Path) -> None:
    if len(skipped):
        raise FingerprintError(
            f"{where} was made with on_error='skip' and lacks {len(skipped)} samples ({skipped[0]} "
            "...); allow that again, or start anew (overwrite=True, --overwrite)"
        )


def _announce(folder: Path, words: str, needed: float, *, progress: bool) -> None:
    """Say how big the maps will be, and refuse what the disk cannot hold."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{words}; with the parts of the run about {needed / 1e9:.3g} GB are needed, the disk "
            f"of {folder.parent} has {free / 1e9:.3g} GB free; keep fewer maps or make room"
        )
    if progress:
        print(words, file=sys.stderr, flush=True)


@contextlib.contextmanager
def on_device(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The model on a device (default where it is), and back where it was afterwards."""
    home = next((p.device for p in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    place = home if device is None else _usable(device)
    if place == home:
        yield place
        return
    try:
        model.to(place)
        yield place
    finally:
        model.to(home)


def _usable(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {str(device)!r} cannot be used: {reason}") from error


@contextlib.contextmanager
def _interruptible() -> Iterator[Any]:
    """Ctrl-C ends the run after the current unit, whose work is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed: list[int] = []

    def note(signum: int, frame: Any) -> None:
        if pressed:  # a second time: at once
            raise KeyboardInterrupt
        pressed.append(signum)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
