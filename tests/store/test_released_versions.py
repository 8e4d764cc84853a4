"""Files of every released version of the format are read, now and later."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.read_all import read_all

import fastconv
from fastconv.store import schema

ARCHIVE = Path(__file__).parents[1] / "archive"

RELEASED = {  # version: the digest of its file
    "1.0": "59ae827a818d9032e37d04bd9dd4410f3a3cec5e5d87d0bb864340f3ef2ffd99",
    "2.0": "1cf4a1e98f4ab4e32bbe78690de7f4e5486dd5c4bd68c379e437969220eba620",
    "2.1": "813c8b12dc516b5a990f157e1216af593a0bb3ba44c477efd5a33667c29c113d",
}


def test_every_released_version_has_its_file():
    assert {path.stem.removeprefix("run-") for path in ARCHIVE.glob("run-*.h5")} == set(RELEASED)
    assert schema.FORMAT_VERSION in RELEASED


@pytest.mark.parametrize("version", RELEASED)
def test_files_of_every_released_version_are_read(version):
    path = ARCHIVE / f"run-{version}.h5"
    assert read_all(path) == RELEASED[version]
    with fastconv.open(path) as run:
        assert run.attributes["fastconv_format_version"] == version
        assert run.damaged() == [] and run.layers == ["conv1", "a/b#1"]
        layer = run["conv1"]
        hits = layer.topk
        assert layer.weight.shape == (3, 3, 3, 3) and hits.box.shape == (3, 2, 2, 2)
        assert layer.stats["count"].tolist() == [99, 99, 0]
        np.testing.assert_array_equal(layer.stats["max"][:2], hits.values[:2, 0])
        assert np.isnan(hits.values[2]).all() and layer.patch(1, 1).shape == (3, 3, 3)
        if "bottomk" in layer.holds:
            np.testing.assert_array_equal(layer.stats["min"], layer.bottomk.values[:, 0])
            assert layer.patch(1, 1, bottom=True).shape == (3, 3, 3)
        else:
            assert version < "2.1"
        assert (layer.quantile(1.0)[:2, 0] == layer.stats["max"][:2]).all()
        assert layer.map(4).shape == (3, 3, 3)
        assert run.samples.keys[10] == "faces/größe_010.png" and run.samples.skipped == [4]
        normalised, low, high = run["a/b#1"], *map(run["a/b#1"].stats.get, ("min", "max"))
        maps_file = ARCHIVE / f"run-{version}.maps" / "a%2Fb#1.h5"
        with h5py.File(maps_file) as file:
            held = file["run/layers/a%2Fb#1/activations"]
            stored = [held[name][1].astype("f8") for name in ("activation", "scale", "offset")]
        expected = stored[0] * stored[1][:, None] + stored[2][:, None]
        expected = (expected - low[:, None]) / (high - low)[:, None]
        found = normalised.map(2)
        np.testing.assert_allclose(found[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-5, atol=1e-6)
