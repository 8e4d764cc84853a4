"""Progress of long work: a bar on a terminal, plain lines elsewhere; both on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0
_BAR_WITHOUT_END = "{n_fmt} samples, {rate_fmt}, {elapsed}"
_BAR = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} samples, {rate_fmt}, {remaining} left"


class Progress:
    """Counts samples; use it as a context manager.

    Args:
        total: samples in all; None where that is not known, and no time left can be told.
        enabled: False shows nothing.
        done: samples of `total` that were done before (in an earlier, interrupted run).
    """

    def __init__(self, total: int | None, *, enabled: bool = True, done: int = 0):
        self.total, self.enabled, self.before, self.done = total, enabled, done, done
        self.bar: tqdm | None = None

    def __enter__(self) -> Progress:
        self.started = self.printed = time.monotonic()
        if self.enabled and sys.stderr.isatty():
            size = shutil.get_terminal_size()  # never 0, as some terminals say
            self.bar = tqdm(
                total=self.total,
                initial=self.done,
                unit=" samples",
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
        if self.total is None:
            self._print(f"{self._count()}, {rate:,.0f} samples/s, {clock(elapsed)}")
            return
        share = self.done / max(self.total, 1)
        left = clock((self.total - self.done) / rate) if rate else "?"
        self._print(f"{self._count()} ({share:.0%}), {rate:,.0f} samples/s, {left} left")

    def _count(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        return f"{self.done:,}{of} samples"

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Whole seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
