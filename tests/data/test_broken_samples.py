"""Samples that cannot be read, are missing or of another form: named, or skipped."""

import pytest
import torch
from helpers.data_sets import Broken, Numbered, read, units
from torch.utils.data import (
    DataLoader,
    default_collate,
)

from fastconv.data import open_data
from fastconv.errors import DataError


def test_collate_fn_that_drops_or_breaks_samples_is_an_error():
    drops = DataLoader(
        Numbered(), collate_fn=lambda s: torch.stack([x for x, _ in s if x.max() != 5])
    )
    with pytest.raises(DataError, match=r"makes shape \[3, 2, 3\] of samples 4 ... 7"):
        read(drops)
    stacks = DataLoader(Broken("shape"), collate_fn=lambda s: torch.stack([x for x, _ in s]))
    with pytest.raises(DataError, match=r"collate_fn fails on samples 4 ... 7: RuntimeError"):
        read(stacks)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_sample_that_raises_is_named_with_its_error(num_workers):
    with pytest.raises(DataError) as caught:
        read(Broken("raise"), 4, num_workers)
    assert str(caught.value) == "sample 7 cannot be read: OSError: truncated file"
    assert "truncated" in str(caught.value.__cause__)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_sample_of_another_shape_is_named(num_workers):
    with pytest.raises(DataError, match=r"sample 7 has shape \[2, 4\], sample 0 has \[2, 3\]"):
        read(Broken("shape"), 4, num_workers)


def test_a_worker_that_dies_is_a_data_error():
    with pytest.raises(DataError, match=r"worker process died .* samples [04] \.\.\. [79] "):
        read(Broken("die"), 4, 1)


def test_a_sample_with_another_number_of_inputs_is_named():
    data = Numbered(6, lambda x, y: ((x,) * (3 if x.max() == 4 else 2), y))
    with pytest.raises(DataError, match="sample 4 has other inputs than sample 0"):
        read(data)
    names = Numbered(6, lambda x, y: ({"a": x, "b" if x.max() < 4 else "c": x}, y))
    with pytest.raises(DataError, match="sample 4 has other inputs than sample 0"):
        read(names)


def without_none(samples):
    return default_collate([s for s in samples if s is not None])


@pytest.mark.parametrize("collate", [None, without_none])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_none_for_a_broken_sample_is_skipped(collate, num_workers):
    data = Numbered(10, lambda x, y: None if x.max() in (0, 5) else (x, y))
    samples = open_data(DataLoader(data, collate_fn=collate), skip=True)
    batches = list(samples.batches(units(10, 4), num_workers))
    assert [x[:, 0, 0].tolist() for x, _ in batches] == [[1, 2, 3], [4, 6, 7], [8, 9]]
    assert [y.tolist() for _, y in batches] == [[1, 2, 0], [1, 0, 1], [2, 0]]
    assert samples.skipped[5] == "sample 5 is None: the data set could not read it"
    assert samples.kept(range(4, 8)) == [4, 6, 7]


def test_none_is_an_error_that_names_the_sample_unless_skipped():
    data = Numbered(10, lambda x, y: None if x.max() == 5 else (x, y))
    with pytest.raises(DataError, match="sample 5 is None"):
        read(DataLoader(data, collate_fn=without_none))


def test_samples_that_a_collate_fn_drops_for_reasons_of_its_own_are_found_one_by_one():
    def small_labels(samples):
        kept = [s for s in samples if s[1] < 2]
        return default_collate(kept)

    samples = open_data(DataLoader(Numbered(), collate_fn=small_labels), skip=True)
    batches = list(samples.batches(units(10, 5)))
    assert [x[:, 0, 0].tolist() for x, _ in batches] == [[0, 1, 3, 4], [6, 7, 9]]
    assert sorted(samples.skipped) == [2, 5, 8]


def test_a_sample_that_cannot_be_read_is_named_by_its_key_too():
    class Files(Broken):
        keys = tuple(f"{i}.png" for i in range(10))

    with pytest.raises(DataError, match=r"sample 7 cannot be read: OSError: .*\(7\.png\)"):
        read(Files("raise"))
