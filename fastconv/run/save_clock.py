"""When the work since the last part is worth saving."""

from __future__ import annotations

import time

BYTES_PER_SECOND = 2e8  # a guess at what saving costs, until a part has been saved
MIN_SECONDS = 1.0  # between two parts, and at least
COST_FACTOR = 20  # times what writing the last one took: saving costs at most 5 %
ELAPSED_SHARE = 0.02  # of the run: so that a long run has hundreds of parts, not thousands


class SaveClock:
    """Weighs the time since the last part against what saving one costs."""

    def __init__(self, state_bytes: int):
        self._started = self._saved = time.monotonic()
        self._cost = state_bytes / BYTES_PER_SECOND

    def due(self) -> bool:
        now = time.monotonic()
        wait = max(MIN_SECONDS, COST_FACTOR * self._cost, ELAPSED_SHARE * (now - self._started))
        return now - self._saved >= wait

    def saved(self, seconds: float) -> None:
        """Note that a part was saved just now, and how long that took."""
        self._saved, self._cost = time.monotonic(), seconds
