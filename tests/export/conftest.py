from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic

import fastconv
from fastconv.format.result import Rows
from fastconv.geometry import FieldMap
from fastconv.store.writer import write_run

HOSTILE = '../../<b>"$\\frac{1}$&\\n\x01 层 layer' + "x" * 300


def layers():
    """Layers of every rank and of every kind that has little to show: info and values."""
    rng = np.random.default_rng(0)

    def values(info, make):
        return info, make((11, info.channels, *info.size)).astype(np.float32)

    def normal(size):
        return rng.normal(size=size)

    yield values(synthetic.layer_info("two", 5), normal)
    yield values(synthetic.layer_info("one", 4, rank=1, size=33), normal)
    yield values(synthetic.layer_info("three", 3, rank=3, size=4), normal)
    linear = synthetic.layer_info("none", 6, rank=0, kind="Linear")
    yield values(replace(linear, fields=(FieldMap.whole(9),) * 2, status="global"), normal)
    yield values(synthetic.layer_info("single filter", 1), normal)
    yield values(synthetic.layer_info("dead", 4), lambda size: -np.abs(normal(size)))
    yield values(synthetic.layer_info("zero", 4, rank=1, size=9), np.zeros)
    yield values(synthetic.layer_info("nan", 4), lambda size: np.full(size, np.nan))
    yield values(synthetic.layer_info("point", 3, kernel=1, size=1), normal)
    yield values(synthetic.layer_info(HOSTILE, 3), normal)


@pytest.fixture(scope="session")
def odd_file(tmp_path_factory):
    """A run of all these layers that keeps everything."""
    results = []
    for info, values in layers():
        result, _ = synthetic.layer_result(info, values=values)
        if info.kind == "Linear":
            result.weight = None
        result.samples_max, result.samples_mean = summaries(values)
        synthetic.with_maps(result, values)
        if info.name == "nan":
            result.maps.activation = Rows(values[::2].shape, [values[::2]])
        results.append(result)
    path = tmp_path_factory.mktemp("odd") / "run.h5"
    config = {**synthetic.CONFIG, "input_size": [9, 9]}
    write_run(path, config, iter(results), samples=synthetic.sample_table())
    return path


@pytest.fixture
def odd_run(odd_file):
    with fastconv.open(odd_file) as run:
        yield run


@pytest.fixture(scope="session")
def bare_file(tmp_path_factory):
    """A run that keeps the weights of one layer, and nothing else."""
    info = synthetic.layer_info("bare", 3)
    result, _ = synthetic.layer_result(info)
    result.stats, result.histogram, result.topk, result.patches = {}, None, {}, None
    path = tmp_path_factory.mktemp("bare") / "run.h5"
    write_run(path, synthetic.CONFIG, iter([result]))
    return path


@pytest.fixture
def bare_run(bare_file):
    with fastconv.open(bare_file) as run:
        yield run


def summaries(values):
    """Maximum and mean of every sample and filter, as rows of a result."""
    flat = values.reshape(*values.shape[:2], -1)
    finite = np.isfinite(flat).any(-1)
    most = np.where(finite, np.nan_to_num(flat, nan=-np.inf).max(-1), np.nan)
    mean = np.where(finite, np.nan_to_num(flat).mean(-1), np.nan)
    return (Rows(part.shape, [part.astype(np.float32)]) for part in (most, mean))
