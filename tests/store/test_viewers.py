"""What other programs make of the file."""

import shutil
import subprocess

import h5py
import netCDF4
import numpy as np
import pytest
import xarray
from helpers import synthetic
from PIL import Image
from silx.io import nxdata
from silx.io import open as silx_open

import fastconv
from fastconv.draw.montage import BACKGROUND
from fastconv.store import write_maps
from fastconv.store.writer import write_run

DIMENSIONS = {
    "conv1/overview/montage": ("y", "x", "color"),
    "conv1/patches/row": ("filter", "rank"),
    "conv1/patches/picture": ("picture_number", "y", "x", "color"),
    "conv1/topk/value": ("filter", "rank"),
    "conv1/topk/box": ("filter", "rank", "input_dimension", "side"),
    "conv1/stats/mean": ("filter",),
    "conv1/histogram/counts": ("filter", "value"),
    "conv1/weights/weight": ("filter", "channel", "y", "x"),
    "conv1/activations/activation": ("row", "filter", "y", "x"),
    "c3/activations/activation": ("row", "filter", "z", "y", "x"),
    "c3/weights/weight": ("filter", "channel", "z", "y", "x"),
    "layer1.0.conv%2F2#1/patches/picture": ("picture_number", "channel", "x"),
}


@pytest.mark.skipif(not shutil.which("h5dump"), reason="h5dump (hdf5-tools) is not installed")
@pytest.mark.parametrize(
    ("which", "held"),
    [("run_file", "montage"), ("run_file", "activation"), ("maps_file", "activation")],
)
def test_h5dump_prints_every_value(request, which, held):
    command = ["h5dump", request.getfixturevalue(which)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr
    assert 'DATASET "activation"' in done.stdout and "H5T_OPAQUE" not in done.stdout
    assert ('DATASET "montage"' in done.stdout) == (which == "run_file")


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_a_tree_with_named_dimensions(run_file, engine):
    with xarray.open_datatree(run_file, engine=engine) as tree, h5py.File(run_file) as file:
        for path, dims in DIMENSIONS.items():
            group, name = f"/run/layers/{path}".rsplit("/", 1)
            found = tree[group].dataset[name]
            assert found.dims == dims
            np.testing.assert_array_equal(found.values, file[f"{group}/{name}"][()])
        tree.load()
        assert tree["/run/samples"].dataset["label"].dims == ("sample",)


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_a_file_of_maps(maps_file, engine):
    with xarray.open_datatree(maps_file, engine=engine) as tree, h5py.File(maps_file) as file:
        found = tree["/run/layers/conv1/activations"].dataset
        assert found["activation"].dims == DIMENSIONS["conv1/activations/activation"]
        stored = file["run/layers/conv1/activations/activation"][()]
        np.testing.assert_array_equal(found["activation"].values, stored)
        assert found["sample"].values.tolist() == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(("which", "variables"), [("run_file", 100), ("maps_file", 5)])
def test_netcdf4_reads_every_variable_and_attribute(request, which, variables):
    def walk(group):
        for owner in (group, *group.variables.values()):
            for name in owner.ncattrs():
                owner.getncattr(name)
        seen = sum(np.size(variable[...]) > 0 for variable in group.variables.values())
        return seen + sum(walk(child) for child in group.groups.values())

    with netCDF4.Dataset(request.getfixturevalue(which)) as file:
        assert walk(file) >= variables


def test_silx_finds_the_overview_by_default_and_every_plot_is_valid(run_file):
    with silx_open(str(run_file)) as file:
        found = nxdata.get_default(file)
        assert found.is_valid and found.interpretation == "rgb-image"
        assert found.signal.name == "/run/layers/conv1/overview/montage"
        plots = []
        file.visititems(lambda _, node: plots.append(node) if _is_plot(node) else None)
        assert len(plots) == 3 * 9 + 1
        for node in plots:
            plot = nxdata.NXdata(node)
            assert plot.is_valid and not plot.issues, (node.name, plot.issues)


def _is_plot(node):
    return node.attrs.get("NX_class") == b"NXdata"


def test_pictures_are_marked_as_such_for_hdfview_and_pytables(run_file):
    with h5py.File(run_file) as file:
        names = ("overview/montage", "patches/picture", "bottomk_patches/picture")
        for path in (*names, "weights_picture/montage"):
            attributes = file[f"run/layers/conv1/{path}"].attrs
            assert attributes["CLASS"] == b"IMAGE"
            assert attributes.get_id("CLASS").dtype.kind == "S"
            assert attributes["IMAGE_SUBCLASS"] == b"IMAGE_TRUECOLOR"


@pytest.mark.browser
def test_h5web_shows_the_overview_without_a_click(tmp_path, photograph):
    infos = [synthetic.layer_info("conv1", 12, kernel=5), synthetic.layer_info("conv2", 4)]
    made = [synthetic.layer_result(info, k=6) for info in infos]
    results = [result for result, _ in made]
    for result, values in made:
        synthetic.with_maps(result, values)
    path = tmp_path / "run.h5"
    write_run(path, synthetic.CONFIG, results)
    with fastconv.open(path) as run:
        montage = run["conv1"].overview
    shot = photograph(path)
    _assert_shown(shot, montage)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("limit", "file", "path"),
    [
        (2**30, "run.h5", "/run/layers/conv1/activations"),
        (0, "run.maps/conv1.h5", "/"),  # without a click
    ],
)
def test_h5web_shows_maps(tmp_path, photograph, monkeypatch, limit, file, path):
    monkeypatch.setattr(write_maps, "INSIDE", limit)
    result, values = synthetic.layer_result(synthetic.layer_info("conv1", 4, size=20))
    synthetic.with_maps(result, np.where(np.arange(20) < 10, 0, 1) + 0 * np.nan_to_num(values))
    write_run(tmp_path / "run.h5", synthetic.CONFIG, [result])
    shot = photograph(tmp_path / file, path).astype(int)
    for color, side in (((68, 1, 84), 0), ((253, 231, 37), 1)):  # both ends of viridis
        found = np.argwhere((np.abs(shot - color) < 6).all(axis=2))
        assert len(found) > 50_000
        middle = np.median(found[:, 1])
        assert middle < 800 if side == 0 else middle > 700


def _assert_shown(shot, montage):
    """The montage, scaled, stands in the screenshot: its colours, upright and unmirrored."""
    # the margin around it is the only large area in that colour
    near = (np.abs(shot.astype(int) - BACKGROUND) < 4).all(axis=2)
    rows, columns = (np.flatnonzero(near.sum(axis=axis) > 100) for axis in (1, 0))
    assert len(rows) and len(columns) and np.ptp(rows) > 300, "no picture on the page"
    shown = shot[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
    ratio = shown.shape[1] / shown.shape[0] / (montage.shape[1] / montage.shape[0])
    assert 0.97 < ratio < 1.03

    def apart(picture):
        size = (shown.shape[1] // 8, shown.shape[0] // 8)
        small = [Image.fromarray(p).resize(size, Image.Resampling.BOX) for p in (picture, seen)]
        return np.abs(np.asarray(small[0], float) - np.asarray(small[1], float)).mean()

    seen = shown.astype(np.uint8)
    right = apart(montage)
    assert right < 8, f"colours differ by {right:.1f} of 255"
    for wrong in (montage[::-1], montage[:, ::-1], montage[..., ::-1]):
        assert apart(np.ascontiguousarray(wrong)) > 2 * right
