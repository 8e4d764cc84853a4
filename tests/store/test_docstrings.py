"""The examples in the docstrings of what a user gets from `fastconv.open` do what they say."""

import doctest

import pytest
from helpers import synthetic

from fastconv.store import read_hits, read_layer, reader
from fastconv.store.writer import write_run


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    result, _ = synthetic.layer_result(synthetic.layer_info("conv1", 6), k=4)
    return str(write_run(tmp_path_factory.mktemp("example") / "run.h5", {}, [result]))


@pytest.mark.parametrize("module", [reader, read_layer, read_hits], ids=lambda m: m.__name__)
def test_examples(module, example):
    found = doctest.testmod(module, extraglobs={"example": example})
    assert found.attempted >= 2 and found.failed == 0
