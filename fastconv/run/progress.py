"""Progress of long work: a bar on a terminal, plain lines elsewhere; both on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0
_BAR = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} samples, {rate_fmt}, {remaining} left"


class Progress:
    """Counts samples; use it as a context manager.

    Args:
        total: samples in all.
        enabled: False shows nothing.
        done: samples of `total` that were done before (in an earlier, interrupted run).
    """

    def __init__(self, total: int, *, enabled: bool = True, done: int = 0):
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
                bar_format=_BAR,
                file=sys.stderr,
                smoothing=0.1,
                ncols=min(100, size.columns),
                nrows=size.lines,
            )
        elif self.enabled and self.done:
            self._print(f"{self.done:,} of {self.total:,} samples were done before")
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
        rate = (self.done - self.before) / max(self.printed - self.started, 1e-9)
        share = self.done / max(self.total, 1)
        left = clock((self.total - self.done) / rate) if rate else "?"
        count = f"{self.done:,} of {self.total:,} samples ({share:.0%})"
        self._print(f"{count}, {rate:,.0f} samples/s, {left} left")

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Whole seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
