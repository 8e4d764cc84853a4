"""Progress of long work: a bar on a terminal, plain lines elsewhere; both on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 15.0
_BAR_WITHOUT_END = "{n_fmt}{unit}, {rate_fmt}, {elapsed}"
_BAR = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt}{unit}, {rate_fmt}, {remaining} left"


class Progress:
    """Counts samples, or other units of work; use it as a context manager.

    Args:
        total: samples in all; None where that is not known, and no time left can be told.
        enabled: False shows nothing.
        done: samples of `total` that were done before (in an earlier, interrupted run).
        unit: what is counted, in the plural.
    """

    def __init__(
        self, total: int | None, *, enabled: bool = True, done: int = 0, unit: str = "samples"
    ):
        self.total, self.enabled, self.before, self.done = total, enabled, done, done
        self.unit = unit
        self.bar: tqdm | None = None

    def __enter__(self) -> Progress:
        self.started = self.printed = time.monotonic()
        if self.enabled and sys.stderr.isatty():
            size = shutil.get_terminal_size()  # never 0, as some terminals say
            self.bar = tqdm(
                total=self.total,
                initial=self.done,
                unit=f" {self.unit}",
                bar_format=_BAR_WITHOUT_END if self.total is None else _BAR,
                file=sys.stderr,
                smoothing=0.1,
                ncols=min(100, size.columns),
                nrows=size.lines,
            )
        elif self.enabled and self.done:
            self._print(f"{self._count()} were done before")
        return self

    def update(self, n: int) -> None:
        """Count `n` more samples."""
        self.done += n
        if self.bar is not None:
            self.bar.update(n)
        elif self.enabled and time.monotonic() - self.printed >= _SECONDS_BETWEEN_LINES:
            self._report()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.enabled and self.done > self.before:
            self._report()

    def _report(self) -> None:
        self.printed = time.monotonic()
        elapsed = self.printed - self.started
        rate = (self.done - self.before) / max(elapsed, 1e-9)
        speed = f"{rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s"
        if self.total is None:
            self._print(f"{self._count()}, {speed}, {clock(elapsed)}")
            return
        share = self.done / max(self.total, 1)
        left = clock((self.total - self.done) / rate) if rate else "?"
        self._print(f"{self._count()} ({share:.0%}), {speed}, {left} left")

    def _count(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        return f"{self.done:,}{of} {self.unit}"

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def counted(items: Sequence[Item], unit: str, *, enabled: bool = True) -> Iterator[Item]:
    """The items, each counted once it is done with."""
    with Progress(len(items), enabled=enabled, unit=unit) as progress:
        for item in items:
            yield item
            progress.update(1)


def clock(seconds: float) -> str:
    """Whole seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
