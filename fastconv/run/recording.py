"""What a run has measured so far: in memory since the last part, and in the parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.capture.batch import rows_of
from fastconv.errors import FastconvError, FileFormatError
from fastconv.format.result import LayerResult, SampleTable
from fastconv.run.job import Job
from fastconv.run.outcomes import MISSING
from fastconv.run.recorder import Recorder, scatter_rows
from fastconv.run.sample_rows import SampleRows, column, packed, texts, unpacked
from fastconv.run.save_clock import SaveClock
from fastconv.run.thumbnails import ThumbnailRows, read_thumbnails
from fastconv.run.units import Undone
from fastconv.store.parts import Part, PartsFolder, PartWriter


class Recording:
    """Takes unit after unit and saves parts; left by an error, it saves what is done."""

    def __init__(self, job: Job, folder: PartsFolder, own: range | None):
        """Take over the parts of the units `own`; None: of all, where their number is unknown."""
        self._job, self._folder, self._own = job, folder, own
        self._recorder = Recorder(job, self._open_part)
        self._clock = SaveClock(self._recorder.nbytes)
        self._writer: PartWriter | None = None
        self._units: range = range(0)  # measured since the last part
        self._rows = SampleRows()  # of those units
        self._skipped: list[int] = []  # of those units
        self._thumbnails = ThumbnailRows(job, self._open_part)  # of a stream
        self._torn = False  # a unit is half taken, or a part half written
        self._parts = folder.parts()
        self.samples_done = sum(len(job.units.samples(_units_of(part))) for part in self._parts)
        self.todo = self._resume()  # the units left to do

    def _resume(self) -> Iterable[int]:
        """Take over the finished parts."""
        done: set[int] = set()
        for part in self._parts:
            units = _units_of(part)
            outside = self._own is not None and not set(units) <= set(self._own)
            if outside or not done.isdisjoint(units):
                raise FileFormatError(f"{part.path} does not fit the run; delete it and run again")
            done.update(units)
            self._recorder.resume(part)
        return Undone(done) if self._own is None else [u for u in self._own if u not in done]

    def maps_size(self) -> tuple[str, float]:
        """The maps of this run in words, and the bytes that the disk needs until it is done.

        While the finished file is written, its maps are in the parts as well.
        """
        infos, maps = [layer.info for layer in self._job.layers], self._recorder.maps
        if self._own is None:
            return maps.size(infos, None)
        words, whole = maps.size(infos, np.asarray(self._own_samples()))
        left = [sample for unit in self.todo for sample in self._job.units[unit]]
        return words, whole + maps.size(infos, np.asarray(left, np.int64))[1]

    def take(self, number: int, unit: range, inputs: Any, labels: Tensor | None) -> None:
        """Measure one unit: the inputs [n, C, ...] of its samples that could be read."""
        if self._units and number != self._units.stop:
            self.save()
        if not self._units:
            self._units = range(number, number)
        self._torn = True
        kept = self._job.source.kept(unit)
        for rows in self._job.pieces(len(kept)):
            own = None if labels is None else labels[rows]
            piece = self._job.transfer(rows_of(inputs, rows))
            self._thumbnails.see(kept[rows], piece)
            self._recorder.take(kept[rows], piece, own)
        outcomes = self._recorder.end_unit(unit, kept, labels)
        self._rows.add(
            {
                f"outcomes/{name}": scatter_rows(values, unit, kept, MISSING[name])
                for name, values in outcomes.items()
            }
        )
        for name, values in self._job.source.column_values.items():
            by_sample = dict(zip(kept, values, strict=True))
            self._rows.add({f"columns/{name}": packed(by_sample.get(sample) for sample in unit)})
        if labels is not None:
            self._rows.add({"labels": scatter_rows(labels.numpy(), unit, kept, -1)})
        if self._job.source.unit_keys is not None:
            self._rows.add({"keys": packed(self._job.source.unit_keys)})
        self._thumbnails.keep(self._recorder.to_be_shown)
        self._skipped += sorted(set(unit) - set(kept))
        self._units = range(self._units.start, number + 1)
        self._torn = False
        if self._clock.due():
            self.save()

    @property
    def unsaved(self) -> bool:
        """Whether something was measured that no part holds yet."""
        return bool(self._units)

    # -- saving ------------------------------------------------------------------------------

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        try:
            if kind is not None and self._units and not self._torn:
                with contextlib.suppress(FastconvError, torch.OutOfMemoryError):
                    self.save()
        finally:
            if self._writer is not None:
                self._writer.discard()
                self._writer = None

    def end(self) -> None:
        """All units are taken: in parts, or none of them is and the states are in memory."""
        self._recorder.settle()
        if self._parts:
            self.save()

    def _open_part(self) -> PartWriter:
        if self._writer is None:
            self._writer = PartWriter(self._folder, self._units.start)
        return self._writer

    def save(self) -> None:
        """Write a part of the units since the last one."""
        if not self._units:
            return
        began = time.monotonic()
        self._torn = True  # until the part is whole
        self._recorder.settle()
        writer = self._open_part()
        self._rows.save(writer)
        if self._skipped:
            writer.append("skipped", np.asarray(self._skipped, np.int64))
        self._recorder.save(writer, self._job.units.samples(self._units))
        self._parts.append(writer.finish(self._units.stop - 1))
        self._parts.sort(key=lambda part: part.first)
        self._writer = None
        self._recorder.forget_totals()
        self._units, self._skipped, self._torn = range(0), [], False
        self._clock.saved(time.monotonic() - began)

    # -- the result --------------------------------------------------------------------------

    def results(self) -> Iterator[LayerResult]:
        """The finished layers, one at a time."""
        return self._recorder.results(self._all_parts(), self._own_samples(), self._kept_samples())

    def sample_table(self) -> SampleTable:
        """Keys, labels, outcomes, columns and thumbnails of the samples of this run."""
        own = self._own_samples()
        table = SampleTable(len(own), self._keys(own), self._joined("labels"), self.skipped())
        if self._job.options.outcomes:
            found = {name: self._joined(f"outcomes/{name}") for name in MISSING}
            table.outcomes = {name: rows for name, rows in found.items() if rows is not None}
        found = {name: self._joined(f"columns/{name}") for name in self._job.options.columns}
        table.columns = {n: column(unpacked(rows)) for n, rows in found.items() if rows is not None}
        table.classes = self._job.source.classes()
        shown = self._recorder.shown_samples(self._kept_samples())
        if self._job.source.by_index:
            table.thumbnails = read_thumbnails(self._job, shown)
        else:
            table.thumbnails = self._thumbnails.of(shown, self._all_parts())
        return table

    def _all_parts(self) -> list[Part]:
        """The finished parts, or the one that was begun, whose states are in memory."""
        return self._parts if self._writer is None else [self._writer.so_far(self._units.stop - 1)]

    def _keys(self, own: range) -> Sequence[str] | None:
        names = self._joined("keys")  # of a stream
        if names is not None:
            return texts(unpacked(names))
        keys = self._job.source.keys()
        return None if keys is None else keys[own.start : own.stop]

    def _joined(self, name: str) -> np.ndarray | None:
        return self._rows.joined(name, self._parts, self._units.start)

    def skipped(self) -> list[int]:
        """The samples so far that could not be read."""
        rows = [r for part in self._parts if (r := part.rows("skipped")) is not None]
        return sorted([int(i) for r in rows for i in r] + self._skipped)

    def _kept_samples(self) -> np.ndarray:
        """[n] int64: the samples of this run that could be read."""
        return np.setdiff1d(np.asarray(self._own_samples()), self.skipped())

    def _own_samples(self) -> range:
        own = self._own or self._job.units.own
        assert own is not None, "the stream has been read to its end"
        return self._job.units.samples(own)


def _units_of(part: Part) -> range:
    return range(part.first, part.last + 1)
