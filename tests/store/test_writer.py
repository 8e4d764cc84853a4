import errno
import weakref

import h5py
import numpy as np
import pytest
from h5py import h5ds
from helpers import synthetic

import fastconv
from fastconv.errors import FastconvError, InputError, OutputError
from fastconv.store import codec, nexus, schema
from fastconv.store.writer import write_run

CASES = {
    "rgb": {"rank": 2, "channels": 5},
    "one-filter": {"rank": 2, "channels": 1},
    "grey": {"rank": 2, "channels": 9, "in_channels": 1},
    "six-channels": {"rank": 2, "channels": 3, "in_channels": 6},
    "audio": {"rank": 1, "channels": 17, "size": 65, "in_channels": 2},
    "volume": {"rank": 3, "channels": 3, "size": 3, "in_channels": 1},
}


def make(rank, channels, size=7, in_channels=3, name="conv1"):
    info = synthetic.layer_info(name, channels, rank, size=size)
    return synthetic.layer_result(info, in_channels=in_channels, both=True)


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read(tmp_path, case):
    result, values = make(**CASES[case])
    write_run(tmp_path / "run.h5", synthetic.CONFIG, [result])
    flat = np.moveaxis(values, 1, 0).reshape(result.info.channels, -1).astype(np.float64)
    flat[~np.isfinite(flat)] = np.nan
    with fastconv.open(tmp_path / "run.h5") as run:
        layer = run["conv1"]
        assert run.layers == ["conv1"] and layer.info == result.info
        assert run.config == synthetic.CONFIG
        np.testing.assert_array_equal(layer.weight, result.weight)
        stats = layer.stats
        np.testing.assert_array_equal(stats["count"], np.isfinite(flat).sum(1))
        for c in range(len(flat)):
            some = flat[c][np.isfinite(flat[c])]
            if not some.size:
                assert all(np.isnan(stats[n][c]) for n in ("mean", "var", "std", "min", "max"))
                assert np.isnan(stats["positive"][c]) and stats["dead"][c]
                continue
            np.testing.assert_allclose(stats["mean"][c], some.mean(), rtol=1e-12)
            np.testing.assert_allclose(stats["var"][c], some.var(), rtol=1e-9)
            assert stats["min"][c] == some.min() and stats["max"][c] == some.max()
            assert stats["positive"][c] == (some > 0).mean()
            assert stats["dead"][c] == (some.max() <= 0)
        for bottom, (name, arrays, pictures) in enumerate(result.hit_sets()):
            hits = getattr(layer, name)
            for got, field in zip(hits, schema.TOPK, strict=True):
                np.testing.assert_array_equal(got, arrays[field])
                assert got.dtype == arrays[field].dtype
            for c, rank in np.ndindex(hits.values.shape):
                found = layer.patch(c, rank, bottom=bool(bottom))
                np.testing.assert_array_equal(found, pictures[c, rank])


def test_raw_results_come_back_bit_for_bit(run_file, tmp_path):
    with fastconv.open(run_file) as run:
        again = [run[name].result() for name in run.layers]
        write_run(tmp_path / "again.h5", run.config, again, samples=run.samples)
        with fastconv.open(tmp_path / "again.h5") as copy:
            assert copy.digest() == run.digest()


def test_small_runs_are_small_files(tmp_path):
    for channels in (1, 5, 64):
        path = write_run(tmp_path / f"{channels}.h5", {}, [make(2, channels)[0]])
        with h5py.File(path) as file:
            assert path.stat().st_size == file.id.get_filesize()
    assert (tmp_path / "1.h5").stat().st_size < 200_000


@pytest.mark.parametrize("most", [1000, 4])
def test_every_dimension_has_a_scale_as_hdf5_attaches_it(tmp_path, monkeypatch, most):
    """Both sides name each other, also where a scale has too many uses and another one begins."""
    monkeypatch.setattr(nexus, "MAX_REFERENCES", most)
    path = write_run(
        tmp_path / "run.h5",
        synthetic.CONFIG,
        (make(**CASES["rgb"], name=f"l{i}")[0] for i in range(3)),
        samples=synthetic.sample_table(),
    )
    checked = []

    def check(name, node):
        for axis, dimension in enumerate(node.dims if "DIMENSION_LIST" in node.attrs else ()):
            (scale,) = dimension.values()
            assert h5ds.is_attached(node.id, scale.id, axis), (name, axis)
            assert scale.shape == (node.shape[axis],)
            assert len(scale.attrs["REFERENCE_LIST"]) < most + 9  # the arrays of one group
            checked.append(name)

    with h5py.File(path) as file:
        file.visititems(check)
    assert {"run/layers/l0/stats/mean", "run/layers/l2/topk/box"} <= set(checked)


def test_layers_keep_forward_order_and_their_names(tmp_path):
    names = ["z", "a", "m.10", "m.9", "relu", "relu#1", "odd/name", "../up", "..", "ä b", "x" * 300]
    layers = (make(2, 2, name=name)[0] for name in names)
    write_run(tmp_path / "run.h5", {}, layers)
    with fastconv.open(tmp_path / "run.h5") as run:
        assert run.layers == names
        assert [run[name].info.name for name in names] == names
    with h5py.File(tmp_path / "run.h5") as file:
        assert len(file["run/layers"]) == len(names)
        assert set(file) == {"run"}


def test_escaped_names_are_safe_and_distinct():
    names = ["", ".", "..", "/", "%", "%2F", "a/b", "a%2Fb", "a\0b", "con:1", "x" * 250, "x" * 251]
    escaped = [schema.escape(name) for name in names]
    assert len(set(escaped)) == len(names)
    for text in escaped:
        assert text and "/" not in text and not text.startswith(".") and len(text) <= 200


def test_equal_work_gives_equal_datasets_whatever_the_times(tmp_path):
    for name, when in (("a.h5", "2026-01-01T00:00:00Z"), ("b.h5", "2026-02-02T00:00:00Z")):
        times = {"start_time": when, "end_time": when}
        write_run(tmp_path / name, synthetic.CONFIG, [make(2, 40)[0]], times=times)
    with fastconv.open(tmp_path / "a.h5") as a, fastconv.open(tmp_path / "b.h5") as b:
        assert a.digest() == b.digest()
        assert a.attributes["start_time"] != b.attributes["start_time"]


def test_digest_sees_one_changed_bit(run_file):
    with fastconv.open(run_file) as run:
        before = run.digest()
    with h5py.File(run_file, "r+") as file:
        file["run/layers/c3/stats/mean"][1] = np.nextafter(file["run/layers/c3/stats/mean"][1], 9)
    with fastconv.open(run_file) as run:
        assert run.digest() != before


def test_an_existing_file_is_kept_unless_told(run_file):
    before = run_file.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_run(run_file, {}, [make(2, 3)[0]])
    assert run_file.read_bytes() == before
    write_run(run_file, {}, [make(2, 3)[0]], overwrite=True)
    with fastconv.open(run_file) as run:
        assert run.layers == ["conv1"]


def test_an_error_in_the_middle_leaves_nothing_and_keeps_the_old_file(run_file):
    def layers():
        yield make(2, 3)[0]
        raise ZeroDivisionError

    before = run_file.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_run(run_file, {}, layers(), overwrite=True)
    assert run_file.read_bytes() == before
    assert list(run_file.parent.iterdir()) == [run_file]


def test_layers_are_taken_one_at_a_time(tmp_path):
    past = []

    def layers():
        for i in range(5):
            assert sum(ref() is not None for ref in past) <= 1
            result = make(2, 2, name=f"l{i}")[0]
            past.append(weakref.ref(result))
            yield result

    write_run(tmp_path / "run.h5", {}, layers())
    with fastconv.open(tmp_path / "run.h5") as run:
        assert len(run) == len(past) == 5


@pytest.mark.parametrize("where", ["missing/run.h5", "."])
def test_an_impossible_place_is_a_clear_error(tmp_path, where):
    with pytest.raises(OutputError, match="folder"):
        write_run(tmp_path / where, {}, [])


def test_reading_what_was_not_kept_says_how_to_keep_it(tmp_path):
    result, _ = make(2, 3)
    result.histogram, result.stats = None, {}
    result.set_hits("topk", {})
    result.set_hits("bottomk", {})
    write_run(tmp_path / "run.h5", {}, [result])
    with fastconv.open(tmp_path / "run.h5") as run:
        layer = run["conv1"]
        for read in (
            lambda: layer.stats,
            lambda: layer.topk,
            lambda: layer.bottomk,
            lambda: layer.patch(0, 0),
            lambda: layer.patch(0, 0, bottom=True),
            lambda: layer.quantile(0.5),
            lambda: layer.samples,
            lambda: layer.map(0),
        ):
            with pytest.raises(InputError, match=r"kept no .*conv1; extract it with"):
                read()


def test_an_unknown_layer_names_near_matches(run_file):
    with fastconv.open(run_file) as run:
        with pytest.raises(KeyError, match="did you mean conv1"):
            run["conv2"]
        with pytest.raises(FastconvError):
            run["nothing like it"]


def test_samples_are_described(run_file):
    with fastconv.open(run_file) as run:
        table = run.samples
        assert run.damaged() == []
    expected = synthetic.sample_table()
    assert table.keys == expected.keys and table.count == 11 and table.skipped == [4]
    np.testing.assert_array_equal(table.labels, expected.labels)


@pytest.mark.parametrize("q", [0, 0.001, 0.25, 0.5, 0.9, 0.999, 1])
def test_quantiles_are_as_good_as_they_say(tmp_path, q):
    rng = np.random.default_rng(3)
    result, values = make(2, 6, size=31)
    write_run(tmp_path / "run.h5", {}, [result])
    with fastconv.open(tmp_path / "run.h5") as run:
        layer = run["conv1"]
        found = layer.quantile([q, float(rng.random())])
        assert found.shape == (6, 2) and layer.quantile_error <= 0.03
        for c in range(6):
            some = values[:, c][np.isfinite(values[:, c])]
            if not some.size:
                assert np.isnan(found[c]).all()
                continue
            exact = np.quantile(some.astype(np.float64), q, method="inverted_cdf")
            assert abs(found[c, 0] - exact) <= layer.quantile_error * abs(exact) + 2**-20
        if q in (0, 1):
            edge = layer.stats["min" if q == 0 else "max"]
            np.testing.assert_array_equal(found[:, 0], edge)


@pytest.mark.parametrize("failures", [1, 99])
def test_a_disk_that_fails_before_the_end_is_a_clean_error(tmp_path, monkeypatch, failures):
    """Also one that fails once and takes everything that comes later."""
    left = [None] * failures

    def fail(path):
        assert path.exists()
        if left:
            left.pop()
            raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(codec, "sync", fail)
    monkeypatch.setattr(codec, "WRITE_BACK", 0)
    layers = (synthetic.layer_result(synthetic.layer_info(f"{i}", 4))[0] for i in range(12))
    with pytest.raises(OutputError, match="cannot write"):
        write_run(tmp_path / "run.h5", synthetic.CONFIG, layers)
    assert not [*tmp_path.iterdir()]
