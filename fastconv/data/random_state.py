"""The global random state of a process, left as it was found."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

_State = tuple[Any, Any, Any]


@contextlib.contextmanager
def random_state_kept() -> Iterator[Callable[[], bool]]:
    """Restore the states of torch (CPU), numpy and `random`; yields whether one has moved."""
    before = _states()
    try:
        yield lambda: not _equal(before, _states())
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def seed_all(seed: int) -> None:
    """Seed torch (CPU), numpy and `random`."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _states() -> _State:
    return torch.get_rng_state(), np.random.get_state(legacy=True), random.getstate()


def _equal(a: _State, b: _State) -> bool:
    (_, key_a, *rest_a), (_, key_b, *rest_b) = a[1], b[1]
    numpy_equal = rest_a == rest_b and np.array_equal(key_a, key_b)
    return torch.equal(a[0], b[0]) and numpy_equal and a[2] == b[2]
