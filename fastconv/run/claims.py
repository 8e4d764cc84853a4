"""Which units a process takes when several work on one run."""

from __future__ import annotations

from fastconv.engines.ranks import Rank
from fastconv.store import lock
from fastconv.store.parts import PartsFolder

MOST = 512  # shares of a run; each is a few consecutive units
GROWTH = 32  # where the total is unknown: a share has 1/32 of the units before it


class Claims:
    """Shares of the units of a run, taken as processes come for them.

    A claim is a locked file: it ends with the process, also when that is killed, and a share that
    no part holds then is open again. A process goes on with the share after its last one, so
    that its parts stay long, or begins in the middle of the largest gap. Of a stream without
    a known end it takes the next share; the farther on, the longer they are.

    Attributes:
        total: units of the run; None until it is known.
    """

    def __init__(self, folder: PartsFolder, total: int | None, rank: Rank):
        self._folder, self._rank, self.total = folder, rank, total
        self._size = None if total is None else max(1, -(-total // MOST))
        self._next = 0 if total is None else len(self._shares(0)) * rank.number // rank.total
        self._held: list[int] = []

    def take(self) -> range | None:
        """Units to measure; some may be in parts. None where all are done or claimed."""
        done = self._folder.done()
        touched = {int(name) for name in self._folder.claimed()}
        shares = self._shares(max(touched, default=-1) + 1 + self._rank.total)
        open_shares = [i for i, share in enumerate(shares) if not done.issuperset(share)]
        for share in self._in_order(open_shares, touched):
            held = self._folder.claim(str(share))
            if held is None:
                continue
            if self.finished() or self._folder.done().issuperset(shares[share]):
                lock.release(held)
                continue
            self._held.append(held)
            self._next = share + 1
            return shares[share]
        return None

    def finished(self) -> bool:
        """Whether every unit is in a part, or the file that was made of them is there."""
        if self._folder.out.exists():
            return True
        return self.total is not None and self._folder.done().issuperset(range(self.total))

    def _shares(self, count: int) -> list[range]:
        """All shares, or of a stream without a known end the first `count`."""
        shares: list[range] = []
        start = 0
        while start < self.total if self.total is not None else len(shares) < count:
            size = self._size or 1 + start // GROWTH
            stop = start + size if self.total is None else min(start + size, self.total)
            shares.append(range(start, stop))
            start = stop
        return shares

    def release(self) -> None:
        """Let go of all shares: parts hold them."""
        while self._held:
            lock.release(self._held.pop())

    def _in_order(self, open_shares: list[int], touched: set[int]) -> list[int]:
        """The next share, then middles of gaps from the largest on, then those once claimed."""
        fresh = [i for i in open_shares if i not in touched]
        gaps: list[list[int]] = []
        for i in fresh:
            if gaps and gaps[-1][-1] == i - 1:
                gaps[-1].append(i)
            else:
                gaps.append([i])
        following = [self._next] if self._next in fresh else []
        middles = [gap[len(gap) // 2] for gap in sorted(gaps, key=len, reverse=True)]
        if self._size is None:
            middles = []  # a stream is read forwards
        return list(dict.fromkeys(following + middles + fresh + open_shares))
