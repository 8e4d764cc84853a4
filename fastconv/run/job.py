"""One run of one model over one data set, the same for `extract` and for `verify` after it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastconv.capture import CaptureTarget, capture_forward, graph_signature, plan_capture
from fastconv.data.samples import Samples, prepared
from fastconv.errors import FastconvError, FingerprintError, InputError, OutputError
from fastconv.measure.patches import Display
from fastconv.run.batch import Batch
from fastconv.run.cuda_graph import Replay
from fastconv.run.fingerprint import made_by, model_hash
from fastconv.run.maps import affines_that_follow
from fastconv.run.options import Options
from fastconv.run.plan import FUSED, chosen_by, plan_kernels, replays
from fastconv.run.progress import Progress
from fastconv.run.run_state import RunState
from fastconv.run.transfer import Feed
from fastconv.store.parts import PartsFolder

_PROBED = 16  # samples whose values decide how images are displayed


class Job:
    """One run of one model over one data set: what identifies it, and its work."""

    def __init__(
        self, model: nn.Module, source: Samples, options: Options, layers: Any, place: torch.device
    ):
        self.model, self.source, self.options, self.place = model, source, options, place
        first, _ = next(iter(source.batches([[source.first()]])))
        first = prepared(first)
        self.input_size = tuple(first.shape[2:])
        with self._autocast():
            targets, self.layout = self._plan(first, layers)
            self.targets = plan_kernels(targets, options, place)
            self.feed = Feed(place, self.layout)
            if place.type == "cpu":
                source.layout = self.layout
            example = self.feed(first)
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
        self.rows = options.batch_size  # samples at a time: fewer, where memory does not suffice
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
        self._work: Callable[[Tensor, Batch], None] = self._forward_into
        if replays(options, place):
            self._work = Replay(
                self._forward_into, lambda: self.state.tensors(), options.batch_size
            )

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
        fewer = {"samples_at_a_time": self.rows} if self.rows < self.options.batch_size else {}
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
            refuse_skipped(self.state.skipped(), folder.path)
        if self.options.maps is not None:
            _announce(folder.path, *self.state.maps_size(todo), progress=progress)
        while True:
            try:
                self._measure_units(todo, own, num_workers, progress=progress)
                break
            except torch.OutOfMemoryError as error:
                self.take_fewer(error)
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
        with self.state.unit(number, unit, kept, labels) as take:
            for rows in self.pieces(len(kept)):
                piece = self.feed(inputs[rows])
                take(kept[rows], piece, partial(self._work, piece))

    def _forward_into(self, inputs: Tensor, batch: Batch) -> None:
        self.forward(
            inputs,
            lambda i, value: self.state.take(i, value, self.targets[i], batch),
            lambda i, value: self.state.convolve(i, value, self.targets[i], batch),
        )

    def pieces(self, count: int) -> list[slice]:
        """The rows of each forward of a batch."""
        return [slice(a, min(a + self.rows, count)) for a in range(0, count, self.rows)]

    def take_fewer(self, error: torch.OutOfMemoryError) -> None:
        """Halve the samples of a forward, and forget what no part holds: a unit is half taken."""
        if self.rows == 1:
            raise FastconvError(
                f"one sample is too much for the memory of {self.place}: "
                f"{str(error).splitlines()[0]}; run on another device"
            ) from error
        before, self.rows = self.rows, (self.rows + 1) // 2
        warnings.warn(
            f"{self.place} is out of memory: the model gets {self.rows} samples at a time from "
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
        try:
            return torch.autocast(self.place.type, getattr(torch, self.options.dtype))
        except RuntimeError as error:  # of a GPU without bfloat16
            reason = str(error).splitlines()[0]
            raise InputError(
                f"dtype {self.options.dtype!r} cannot be used on {self.place}: {reason}"
            ) from error

    def _display(self) -> Display | None:
        if not self.options.patches:
            return None
        n = len(self.source)
        chosen = sorted({round(i * (n - 1) / (_PROBED - 1)) for i in range(_PROBED)})
        probe = torch.cat([x for x, _ in self.source.batches([[i] for i in chosen])])
        return Display.choose(probe, self.source.input_dtype)


def refuse_skipped(skipped: Sequence[int], where: Path) -> None:
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
