"""Which units a process takes when several work on one run."""

from __future__ import annotations

from fastconv.engines.ranks import Rank
from fastconv.store import lock
from fastconv.store.parts import PartsFolder

MOST = 512  # shares of a run; each is a few consecutive units


class Claims:
    """Shares of the units of a run, taken as processes come for them.

    A claim is a locked file: it ends with the process, also when that is killed, and a share that
    no part holds then is open again. A process goes on with the share after its last one, so
    that its parts stay long, or begins in the middle of the largest gap.
    """

    def __init__(self, folder: PartsFolder, total: int, rank: Rank):
        self._folder = folder
        size = max(1, -(-total // MOST))
        self._shares = [range(a, min(a + size, total)) for a in range(0, total, size)]
        self._next = len(self._shares) * rank.number // rank.total
        self._held: list[int] = []

    def take(self) -> range | None:
        """Units to measure; some may be in parts. None where all are done or claimed."""
        done = self._folder.done()
        open_shares = [i for i, share in enumerate(self._shares) if not done.issuperset(share)]
        touched = {int(name) for name in self._folder.claimed()}
        for share in self._in_order(open_shares, touched):
            held = self._folder.claim(str(share))
            if held is None:
                continue
            if self.finished() or self._folder.done().issuperset(self._shares[share]):
                lock.release(held)
                continue
            self._held.append(held)
            self._next = share + 1
            return self._shares[share]
        return None

    def finished(self) -> bool:
        """Whether every unit is in a part, or the file that was made of them is there."""
        if self._folder.out.exists():
            return True
        done = self._folder.done()
        return all(done.issuperset(share) for share in self._shares)

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
        return list(dict.fromkeys(following + middles + fresh + open_shares))
