"""Columns of samples that are dicts."""

import numpy as np
import pytest
from helpers.networks import datasets
from helpers.patients import N, Patients, model

import fastconv


class OddValue(Patients):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def __getitem__(self, i):
        return super().__getitem__(i) | {"value": self.value if i == 20 else 1}


def test_odd_values_of_columns(tmp_path):
    asked = {"columns": ["value"], "topk": 1, "batch_size": 4, "progress": False}
    with fastconv.extract(model(), OddValue("\udcff"), tmp_path / "a.h5", **asked) as run:
        assert run.columns["value"][20] == "?"
    with pytest.raises(
        fastconv.errors.DataError, match=r"'value' of sample 20 is 1000.*give a text"
    ):
        fastconv.extract(model(), OddValue(10**20), tmp_path / "b.h5", **asked)


class Coded(Patients):
    """A column of codes: numbers, texts and nothing, in an order that no batch shows whole."""

    def __getitem__(self, i):
        code = [1, 2, None, 2.5, "a", None, 7][i // 3 % 7]
        return super().__getitem__(i) | {"code": code, "age": [3, None, 4.5][i // 8]}


def test_columns_of_several_kinds_do_not_depend_on_batches_or_shards(tmp_path):
    asked = {"columns": ["code", "age"], "topk": 1, "samples": True, "progress": False}
    texts = ["1", "2", "", "2.5", "a", "", "7"]
    wanted = [texts[i // 3 % 7] for i in range(N)]
    for size in (1, 3, 4, 100):
        path = tmp_path / f"{size}.h5"
        with fastconv.extract(model(), Coded(), path, batch_size=size, **asked) as run:
            assert run.columns["code"].tolist() == wanted
            ages = [3.0] * 8 + [np.nan] * 8 + [4.5] * 6
            np.testing.assert_array_equal(run.columns["age"], ages)
    groups = set(fastconv.insight.biases(fastconv.open(path), "code")["group"])
    assert groups <= {"1", "2", "2.5", "a", "7"} and len(groups) > 2  # what is missing is none
    parts = [tmp_path / f"part{i}.h5" for i in range(3)]
    for i, part in enumerate(parts):
        fastconv.extract(model(), Coded(), part, batch_size=4, shard=(i, 3), **asked)
    fastconv.merge(parts, tmp_path / "merged.h5")
    merged, whole = (datasets(tmp_path / f"{name}.h5") for name in ("merged", "4"))
    assert [k for k in whole if whole[k] != merged.get(k)] == []
