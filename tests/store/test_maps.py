"""Activation maps: inside the run's file and beside it."""

import h5py
import numpy as np
import pytest
import xarray
from helpers import synthetic
from silx.io import nxdata
from silx.io import open as silx_open

import fastconv
from fastconv.errors import FileFormatError, InputError, OutputError
from fastconv.format.result import LayerResult
from fastconv.store import write_maps
from fastconv.store.schema import maps_path
from fastconv.store.writer import write_run

TOLERANCE = {"rounded": 2**-11, "exact": 0, "float16": 2**-11, "uint8": 1 / 255}


def make(path, storage="rounded", names=("conv1", "conv2"), **options):
    """A run with maps of samples 0, 2, 4, ...; returns them by name."""
    expected, results = {}, []
    for name in names:
        result, values = synthetic.layer_result(synthetic.layer_info(name, 5), seed=len(name))
        expected[name] = synthetic.with_maps(result, values, storage)
        results.append(result)
    write_run(path, synthetic.CONFIG, results, **options)
    return expected


@pytest.fixture(params=["inside", "beside", "both"])
def place(request, monkeypatch):
    """Where the maps of two layers go: 6 x 5 x 7 x 7 values each."""
    one = 6 * 5 * 7 * 7 * 4
    limit = {"inside": 2**30, "beside": 0, "both": one}
    monkeypatch.setattr(write_maps, "INSIDE", limit[request.param])
    return request.param


@pytest.mark.parametrize("storage", TOLERANCE)
def test_maps_come_back_as_exact_as_asked(tmp_path, place, storage):
    path = tmp_path / "run.h5"
    expected = make(path, storage)
    with fastconv.open(path) as run:
        for name, values in expected.items():
            layer = run[name]
            assert "activations" in layer.holds
            np.testing.assert_array_equal(layer.map_samples, [0, 2, 4, 6, 8, 10])
            for row, sample in enumerate(layer.map_samples):
                got = layer.map(sample)
                assert got.dtype == np.float32 and got.shape == values[row].shape
                scale = np.ptp(values[row], axis=(1, 2), keepdims=True).max() + abs(values[row])
                assert (abs(got - values[row]) <= TOLERANCE[storage] * scale).all()
            with pytest.raises(InputError, match="no map of sample 3"):
                layer.map(3)
    beside = {"inside": 0, "beside": 2, "both": 1}[place] * (storage == "rounded")
    if storage == "rounded":
        assert len(list(tmp_path.glob("run.maps/*.h5"))) == beside


@pytest.mark.parametrize("storage", TOLERANCE)
def test_maps_are_written_again_without_loss(tmp_path, place, storage):
    make(tmp_path / "run.h5", storage)
    with fastconv.open(tmp_path / "run.h5") as run:
        results = []
        for name in run.layers:
            result = run[name].result()
            result.maps = run[name].maps()
            results.append(result)
        write_run(tmp_path / "again.h5", run.config, results)
        with fastconv.open(tmp_path / "again.h5") as again:
            assert again.digest() == run.digest()


def test_a_maps_file_stands_on_its_own_in_viewers(tmp_path, monkeypatch):
    monkeypatch.setattr(write_maps, "INSIDE", 0)
    make(tmp_path / "run.h5")
    path = tmp_path / "run.maps" / "conv2.h5"
    with silx_open(str(path)) as file:
        found = nxdata.get_default(file)
        assert found.is_valid and found.signal.name == "/run/layers/conv2/activations/activation"
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        found = tree["/run/layers/conv2/activations"].dataset["activation"]
        assert found.dims == ("row", "filter", "y", "x") and found.shape == (6, 5, 7, 7)


def test_maps_of_another_run_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(write_maps, "INSIDE", 0)
    make(tmp_path / "run.h5")
    result, values = synthetic.layer_result(synthetic.layer_info("conv1", 5))
    synthetic.with_maps(result, values)
    write_run(tmp_path / "other.h5", {"options": "others"}, [result])
    path = maps_path(tmp_path / "run.h5", "conv1")
    path.unlink()
    with fastconv.open(tmp_path / "run.h5") as run:
        with pytest.raises(FileFormatError, match=r"no file .*conv1.h5"):
            run["conv1"].map(0)
        maps_path(tmp_path / "other.h5", "conv1").rename(path)
        with pytest.raises(FileFormatError, match="another run"):
            run["conv1"].map(0)
        assert run["conv2"].map(0).shape == (5, 7, 7)


def test_an_error_leaves_neither_file_nor_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(write_maps, "INSIDE", 0)

    def layers():
        result, values = synthetic.layer_result(synthetic.layer_info("conv1", 5))
        synthetic.with_maps(result, values)
        yield result
        raise OutputError("enough")

    with pytest.raises(OutputError, match="enough"):
        write_run(tmp_path / "run.h5", {}, layers())
    assert list(tmp_path.iterdir()) == []


def test_layer_names_cannot_lead_maps_out_of_their_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(write_maps, "INSIDE", 0)
    names = ["../up", "..", "/etc/passwd", "a/b", "ä" * 200]
    make(tmp_path / "run.h5", names=names)
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.parent for path in found} == {tmp_path, tmp_path / "run.maps"}
    assert len(found) == 1 + len(names)
    with fastconv.open(tmp_path / "run.h5") as run:
        for name in names:
            assert run[name].map(4).shape == (5, 7, 7)


def test_maps_alone_make_a_run(tmp_path):
    result, values = synthetic.layer_result(synthetic.layer_info("conv1", 5))
    only = LayerResult(result.info, None)
    synthetic.with_maps(only, values)
    write_run(tmp_path / "run.h5", {}, [only])
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["run"].attrs["default"] == b"layers/conv1/activations"
    with fastconv.open(tmp_path / "run.h5") as run:
        assert run["conv1"].holds == ("activations",)


def test_maps_of_a_layer_without_spatial_dimensions(tmp_path):
    info = synthetic.layer_info("fc", 5, rank=0)
    only = LayerResult(info, None)
    values = np.random.default_rng(0).normal(size=(11, 5)).astype("f4")
    expected = synthetic.with_maps(only, values)
    write_run(tmp_path / "run.h5", {}, [only])
    with fastconv.open(tmp_path / "run.h5") as run:
        np.testing.assert_allclose(run["fc"].map(2), expected[1], rtol=2**-10)
