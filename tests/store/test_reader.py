"""What a user meets who opens a finished run."""

import fcntl
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from helpers import synthetic

import fastconv
from fastconv.errors import InputError
from fastconv.store.writer import write_run

ARCHIVE = Path(__file__).parents[1] / "archive" / "run-2.0.h5"


@pytest.fixture
def with_samples(tmp_path):
    result, _ = synthetic.layer_result(synthetic.layer_info("conv1", 5), samples=11)
    result.samples_max = np.arange(55, dtype=np.float32).reshape(11, 5)
    write_run(tmp_path / "run.h5", synthetic.CONFIG, [result])
    return tmp_path / "run.h5"


def test_reading_needs_neither_torch_nor_a_viewer():
    code = (
        "import sys\n"
        "for name in ('torch', 'triton', 'PIL', 'pandas', 'matplotlib', 'fsspec'):\n"
        "    sys.modules[name] = None\n"
        "import fastconv\n"
        f"with fastconv.open({str(ARCHIVE)!r}) as run:\n"
        "    layer = run['conv1']\n"
        "    dict(layer.stats), layer.topk, layer.patch(0, 0), layer.quantile(0.5), layer.weight\n"
        "    layer.map(4), run['a/b#1'].map(2), layer.overview, run.samples, run.digest()\n"
        "    layer.result(), list(layer.filter_maps(1)), layer.condition('rot/15').stats['mean']\n"
        "print('read')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("read\n", 0), done.stderr


def test_the_command_line_answers_without_numpy_or_torch():
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['numpy'] = sys.modules['h5py'] = None\n"
        "from fastconv.cli.main import main\n"
        "main({argv})"
    )
    for argv, said in (
        (["--help"], "inspect"),
        (["--version"], "fastconv "),
        (["merge", "-h"], "SHARD"),
    ):
        command = [sys.executable, "-c", code.format(argv=argv)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and said in done.stdout, done.stderr
    command = [sys.executable, "-m", "fastconv", "inspect", ARCHIVE, "conv1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3 filters" in done.stdout


def test_every_public_name_is_there_and_nothing_else():
    for name in fastconv.__all__:
        home = fastconv._HOMES.get(name, (f"fastconv.{name}",))[0].split(".")
        if any(Path(fastconv.__file__).parent.glob(f"{home[1]}*")):
            assert getattr(fastconv, name) is not None
    assert set(fastconv.__all__) <= set(dir(fastconv))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fastconv.nothing  # noqa: B018


def test_arrays_are_read_once_and_cannot_be_changed(with_samples):
    with fastconv.open(with_samples) as run:
        layer = run["conv1"]
        assert layer.stats["mean"] is layer.stats["mean"]
        assert layer.topk.values is layer.topk.values
        assert layer.samples.max is layer.samples.max and layer.samples.mean is None
        for array in (layer.stats["mean"], layer.topk.box, layer.histogram[0], layer.weight):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


def test_statistics_are_read_one_by_one(with_samples, monkeypatch):
    reads = []
    plain = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, key: reads.append(self.name) or plain(self, key)
    )
    with fastconv.open(with_samples) as run:
        reads.clear()
        assert set(run["conv1"].stats) >= {"count", "mean", "var", "std", "min", "max", "dead"}
        run["conv1"].stats["max"]
        assert reads == ["/run/layers/conv1/stats/max"]


def test_a_statistic_that_is_none_is_missing_and_the_file_not_damaged(with_samples):
    with fastconv.open(with_samples) as run:
        stats = run[run.layers[0]].stats
        assert "median" not in stats and stats.get("median") is None and "dead" in stats
        with pytest.raises(KeyError, match=r"median; there are mean, std, .*nonfinite"):
            stats["median"]


def test_rows_of_samples_are_read_alone(with_samples):
    with fastconv.open(with_samples) as run:
        highest, mean = run["conv1"].samples.rows(3, 7)
        np.testing.assert_array_equal(highest, np.arange(15, 35).reshape(4, 5))
        assert mean is None


@pytest.mark.parametrize("read", ["stats", "topk", "patches", "samples", "holds", "overview"])
def test_a_layer_of_a_closed_run_says_that_it_is_closed(with_samples, read):
    run = fastconv.open(with_samples)
    layer = run["conv1"]
    run.close()
    with pytest.raises(InputError, match=r"run\.h5 is closed; open it again"):
        getattr(layer, read)
    assert run.layers == ["conv1"]  # known by now


def test_what_was_read_before_closing_stays(with_samples):
    with fastconv.open(with_samples) as run:
        stats, patches = run["conv1"].stats, run["conv1"].patches
        mean = stats["mean"]
    assert stats["mean"] is mean
    with pytest.raises(InputError, match="is closed"):
        stats["var"]
    with pytest.raises(InputError, match="is closed"):
        patches[0, 0]


def test_runs_and_layers_can_be_pickled():
    with fastconv.open(ARCHIVE) as run:
        layer = run["conv1"].condition("rot/15")
        again, other = pickle.loads(pickle.dumps((run, layer)))
        np.testing.assert_array_equal(again["conv1"].topk.box, run["conv1"].topk.box)
        np.testing.assert_array_equal(other.stats["max"], layer.stats["max"])
        again.close()


def opened(how, path):
    if how == "fastconv":
        return fastconv.open(path)
    if how == "h5py":
        return h5py.File(path)
    if how == "without locks":
        return h5py.File(path, locking=False)
    return xarray.open_datatree(path, engine=how)


WAYS = ("fastconv", "h5py", "h5netcdf", "netcdf4")


@pytest.mark.parametrize("first", [*WAYS, "without locks"])
def test_a_file_is_open_in_several_ways_at_once(with_samples, first):
    with opened(first, with_samples):
        for second in WAYS if first in WAYS else ("fastconv", "netcdf4"):
            with opened(second, with_samples), fastconv.open(with_samples) as run:
                assert run["conv1"].stats["count"].sum() > 0


def test_a_file_that_another_process_has_locked_is_read(with_samples):
    with with_samples.open("rb") as held:  # as a file system without locks refuses, too
        fcntl.flock(held, fcntl.LOCK_EX)
        with fastconv.open(with_samples) as run:
            assert run["conv1"].stats["count"].sum() > 0


def test_the_tree_of_xarray_has_named_dimensions_and_values(with_samples):
    with fastconv.open(with_samples) as run, run.to_xarray() as tree:
        held = tree["/run/layers/conv1/topk"].dataset
        assert held["value"].dims == ("filter", "rank")
        np.testing.assert_array_equal(held["value"].values, run["conv1"].topk.values)


def test_hits_as_a_table_leave_empty_slots_out():
    with fastconv.open(ARCHIVE) as run:
        hits = run["conv1"].topk
    table = hits.to_pandas()
    assert list(table.columns) == [
        "filter", "rank", "value", "sample", "position_y", "position_x",
        "start_y", "stop_y", "start_x", "stop_x", "status",
    ]  # fmt: skip
    assert len(table) == (hits.sample >= 0).sum()
    row = table.iloc[-1]
    f, rank = int(row["filter"]), int(row["rank"])
    assert (row["value"], row["sample"]) == (hits.values[f, rank], hits.sample[f, rank])
    assert [row["start_y"], row["stop_y"]] == hits.box[f, rank, 0].tolist()
    assert set(table["status"]) == {"exact"}


def test_samples_outcomes_columns_classes_and_thumbnails():
    given = synthetic.described_samples()
    with fastconv.open(ARCHIVE) as run:
        for name, values in given.outcomes.items():
            np.testing.assert_array_equal(run.outcomes[name], values)
        assert run.outcomes["confidence"].dtype == np.float32
        assert set(run.columns) == set(given.columns)
        assert run.columns["age"].tolist() == list(range(0, 77, 7))
        np.testing.assert_array_equal(run.columns["sample"], given.columns["sample"])
        assert run.columns["site/ä"].tolist() == given.columns["site/ä"]
        assert run.classes == given.classes
        for sample, picture in given.thumbnails.items():
            np.testing.assert_array_equal(run.thumbnail(sample), picture)
        assert run.thumbnail(1) is None
        assert run.graph == [("conv1", "a/b#1")]


def test_a_run_without_them_says_so(with_samples):
    with fastconv.open(with_samples) as run:
        assert (run.outcomes, run.columns, run.classes, run.samples) == ({}, {}, None, None)
        assert (run.conditions, run.graph, run.thumbnail(0)) == ((), [], None)
        with pytest.raises(InputError, match=r"not measured under 'noise'.*conditions="):
            run["conv1"].condition("noise")


@pytest.mark.parametrize(
    "read",
    [
        lambda layer, filter: layer[filter],
        lambda layer, filter: layer.patch(filter),
        lambda layer, filter: layer.weight_of(filter),
        lambda layer, filter: layer.map(4, filter),
        lambda layer, filter: layer.filter_maps(filter),
    ],
)
@pytest.mark.parametrize("filter", [-1, 99])
def test_a_filter_that_is_not_there_is_no_damage_of_the_file(run_file, read, filter):
    with (
        fastconv.open(run_file) as run,
        pytest.raises(InputError, match=rf"0 to 4.*, got {filter}"),
    ):
        read(run["conv1"], filter)


@pytest.mark.parametrize("q", [[], 1.5, [0.5, np.nan], [[0.5]]])
def test_quantiles_that_are_none_are_refused(with_samples, q):
    said = "give one or more quantiles between 0 and 1, got"
    with fastconv.open(with_samples) as run, pytest.raises(InputError, match=said):
        run["conv1"].quantile(q)


def test_a_condition_is_read_as_a_layer_is(tmp_path):
    plain, _ = synthetic.layer_result(synthetic.layer_info("conv1", 5), seed=0)
    noisy, _ = synthetic.layer_result(synthetic.layer_info("conv1", 5), seed=3)
    noisy.weight, noisy.samples_mean = None, np.ones((11, 5), np.float32)
    plain.conditions["noise/0.1"] = noisy
    write_run(tmp_path / "run.h5", {}, [plain])
    with fastconv.open(tmp_path / "run.h5") as run:
        assert run.conditions == run["conv1"].conditions == ("noise/0.1",)
        layer = run["conv1"].condition("noise/0.1")
        assert layer.weight is None and layer.under == "noise/0.1" and "noise/0.1" in repr(layer)
        np.testing.assert_array_equal(layer.topk.values, noisy.topk["value"])
        np.testing.assert_array_equal(layer.patches[()], noisy.patches)
        np.testing.assert_array_equal(run["conv1"].patches[()], plain.patches)
        assert layer.quantile(1.0)[0, 0] == layer.stats["max"][0]
        np.testing.assert_array_equal(layer.samples.mean, noisy.samples_mean)
        again = run["conv1"].result()
        write_run(tmp_path / "again.h5", {}, [again])
        with fastconv.open(tmp_path / "again.h5") as copy:
            assert copy.digest() == run.digest()


def test_maps_by_filter_and_by_sample_read_no_more_than_asked(tmp_path):
    result, values = synthetic.layer_result(synthetic.layer_info("conv1", 4, size=9), samples=20)
    kept = synthetic.with_maps(result, values, samples=range(20))
    write_run(tmp_path / "run.h5", {}, [result])
    with fastconv.open(tmp_path / "run.h5") as run:
        layer = run["conv1"]
        for sample, value in layer.filter_maps(3):
            np.testing.assert_allclose(value, kept[sample, 3], rtol=2**-11)
            np.testing.assert_array_equal(value, layer.map(sample, 3))
            np.testing.assert_array_equal(value, layer.map(sample)[3])
        assert sample == 19


@pytest.mark.parametrize("outcome", [np.zeros(3), np.zeros((11, 2))])
def test_an_outcome_of_another_length_is_refused(tmp_path, outcome):
    table = synthetic.described_samples()
    table.outcomes["confidence"] = outcome
    with pytest.raises(InputError, match=r"outcomes/confidence must have one value for each of 11"):
        write_run(tmp_path / "run.h5", {}, [], samples=table)
    assert not list(tmp_path.iterdir())
