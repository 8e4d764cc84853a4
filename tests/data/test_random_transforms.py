"""Random transforms are refused, and the random state of the caller is left alone."""

import random

import numpy as np
import pytest
import torch
from helpers.data_sets import Numbered, units
from torch.utils.data import (
    DataLoader,
)

from fastconv.data import open_data
from fastconv.errors import DataError


def flipped(x, y, toss):
    return (x.flip(0), y) if toss() else (x, y)


DRAWS = {
    "torch": lambda: torch.rand(()) < 0.5,
    "numpy": lambda: np.random.rand() < 0.5,
    "random": lambda: random.random() < 0.5,
    "own": np.random.default_rng(0).random,
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("seed", range(5))
def test_a_random_transform_is_refused_even_if_it_acts_on_every_second_sample(draw, seed):
    torch.manual_seed(seed)
    toss = DRAWS[draw] if draw != "own" else iter([True, False] * 9).__next__
    ramp = torch.arange(6.0).reshape(2, 3)
    data = Numbered(3, lambda x, y: flipped(ramp, y, toss))
    with pytest.raises(DataError, match=r"random: sample 0 differs .*leave its random transforms"):
        open_data(data)


def test_drawing_numbers_that_change_nothing_is_not_random():
    assert len(open_data(Numbered(3, lambda x, y: (x + 0 * torch.rand(()), y)))) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_random_state_of_the_caller_is_left_alone(num_workers):
    def draws(x, y):
        return x + 0 * (torch.rand(()) + np.random.rand() + random.random()), y

    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    samples = open_data(DataLoader(Numbered(10, draws), shuffle=True))
    list(samples.batches(units(10, 4), num_workers))
    samples.fingerprint()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
