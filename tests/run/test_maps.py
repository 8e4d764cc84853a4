"""The maps that `extract` keeps: how they are stored and normalised."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from helpers.networks import datasets, images, network
from torch import nn

import fastconv
from fastconv.errors import InputError, OutputError

LAYERS = ["0", "3.conv", "5", "7"]
KEPT = [1, 2, 3, 9, 17, 18, 19, 30]
STATISTICS = {"zscore": ("mean", "var"), "minmax": ("min", "max")}


def extract(path, model=None, **options):
    options = {"maps": KEPT, "batch_size": 8, "layers": LAYERS, "progress": False, **options}
    return fastconv.extract(network() if model is None else model, images(32), path, **options)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The exact maps, not normalised: {layer: [n, C, *spatial]}, and the statistics."""
    with extract(tmp_path_factory.mktemp("raw") / "run.h5", maps_dtype="exact") as run:
        maps = {n: np.stack([run[n].map(s) for s in KEPT]) for n in run.layers}
        return maps, {n: dict(run[n].stats) for n in run.layers}


def loaded(run):
    return {name: np.stack([run[name].map(s) for s in KEPT]) for name in run.layers}


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [
        ("instance", "exact"),
        ("l1", "exact"),
        ("l2", "uint8"),
        ("zscore", "uint8"),
        ("minmax", "exact"),
    ],
)
def test_maps_are_normalised_and_nothing_else_is(tmp_path, raw, mode, dtype):
    expected, plain = raw
    with extract(tmp_path / "run.h5", normalize=mode, maps_dtype=dtype) as run:
        for name, maps in loaded(run).items():
            stats = run[name].stats
            given = {k: torch.from_numpy(stats[k]) for k in STATISTICS.get(mode, ())}
            again = fastconv.channel_normalize(torch.from_numpy(expected[name]), mode, **given)
            if dtype == "exact":
                np.testing.assert_array_equal(maps, again.numpy())
            else:
                step = np.ptp(again.numpy(), axis=(2, 3), keepdims=True) / 255
                assert (abs(maps - again.numpy()) <= 0.51 * step + 1e-6).all()
            assert all(np.array_equal(stats[k], plain[name][k]) for k in stats)
            assert run[name].maps().normalize == mode


def test_batchnorm_is_the_one_that_follows(tmp_path, raw):
    model, expected = network().eval(), raw[0]
    with extract(tmp_path / "run.h5", model, layers=["0", "3.conv"], normalize="batchnorm",
                 maps_dtype="exact") as run:  # fmt: skip
        maps = loaded(run)
    with torch.no_grad():
        for name, norm in (("0", model[1]), ("3.conv", model[3].bn)):
            again = norm(torch.from_numpy(expected[name])).numpy()
            np.testing.assert_allclose(maps[name], again, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"no batch norm .* follows 5, 7"):
        extract(tmp_path / "other.h5", normalize="batchnorm")
    assert [p.name for p in tmp_path.iterdir()] == ["run.h5"]


@pytest.mark.parametrize("dtype", ["rounded", "exact", "float16", "uint8"])
def test_storage_is_as_exact_as_it_says(tmp_path, raw, dtype):
    with extract(tmp_path / "run.h5", maps_dtype=dtype) as run:
        assert run["0"].maps().storage == dtype
        for name, maps in loaded(run).items():
            exact = raw[0][name]
            spread = np.ptp(exact, axis=(2, 3), keepdims=True)
            bound = {
                "rounded": 2.0**-11 * abs(exact),
                "exact": 0,
                "float16": 2.0**-11 * abs(exact) + 2.0**-25,
                "uint8": 0.51 / 255 * spread,
            }
            assert maps.dtype == np.float32 and (abs(maps - exact) <= bound[dtype]).all()
    assert fastconv.verify(tmp_path / "run.h5", network(), images(32))


def test_verify_reports_a_changed_map(tmp_path):
    extract(tmp_path / "run.h5").close()
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file["run/layers/5/activations/activation"][3, 2, 1, 1] += 0.5
    report = fastconv.verify(tmp_path / "run.h5", network(), images(32), hits=1)
    (failed,) = [check for check in report.checks if not check.ok]
    assert failed.detail == "of /run/layers/5/activations/activation differ"


@pytest.mark.parametrize(
    "options",
    [
        {"maps_dtype": "uint8", "normalize": "minmax"},
        {"maps_dtype": "float16", "normalize": "l2"},
        {"maps": [1], "normalize": "zscore"},  # of one shard only
    ],
)
def test_merged_shards_have_the_bytes_of_one_run(tmp_path, options):
    extract(tmp_path / "whole.h5", **options)
    parts = [tmp_path / f"{i}.h5" for i in range(3)]
    for i, part in enumerate(parts):
        extract(part, shard=(i, 3), **options)
    merged = fastconv.merge(parts, tmp_path / "merged.h5")
    with merged, fastconv.open(tmp_path / "whole.h5") as whole:
        for name in LAYERS:
            np.testing.assert_array_equal(merged[name].map(1), whole[name].map(1))
    whole, merged = (datasets(tmp_path / f"{n}.h5") for n in ("whole", "merged"))
    assert whole.keys() == merged.keys() and [k for k in whole if whole[k] != merged[k]] == []


def test_eight_bits_of_what_is_not_finite(tmp_path):
    data = images(4)
    data[0, 0, 0, 0], data[0, 0, 5, 5], data[0, 0, 5, 6] = torch.inf, -torch.inf, torch.nan
    data[1] = torch.nan
    model = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))
    nn.init.constant_(model[0].weight, 1.0)
    path = tmp_path / "run.h5"
    with fastconv.extract(model, data, path, maps="all", maps_dtype="uint8", progress=False) as run:
        first = run["0"].map(0)[0]
        finite = data[0].sum(0).numpy()
        usual = np.isfinite(finite)
        step = np.ptp(finite[usual]) / 255
        assert (abs(first - finite)[usual] <= 0.51 * step).all()
        for at, extremum in (((0, 0), np.max), ((5, 5), np.min), ((5, 6), np.min)):
            assert abs(first[at] - extremum(finite[usual])) < 0.01 * step
        assert np.isnan(run["0"].map(1)).all()


def test_the_size_is_said_before_and_too_much_is_refused(tmp_path, monkeypatch, capsys):
    options = {"maps": "all", "layers": ["0"], "progress": True}
    extract(tmp_path / "run.h5", **options).close()
    words = "maps of 32 samples x 1 layers: 102 kB uncompressed, about 41 kB on the disk"
    assert capsys.readouterr().err.splitlines()[0] == words  # 32 x 8 x 10 x 10 float32
    usage = shutil.disk_usage(tmp_path)
    for room, fits in ((82_000, True), (81_900, False)):  # parts, and the file made of them
        monkeypatch.setattr(shutil, "disk_usage", lambda _, room=room: usage._replace(free=room))
        if fits:
            extract(tmp_path / "other.h5", **options).close()
            (tmp_path / "other.h5").unlink()
        else:
            with pytest.raises(OutputError, match=r"maps of 32 samples .*keep fewer maps"):
                extract(tmp_path / "other.h5", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["run.h5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "softmax"}, "normalize must be None or one of batchnorm, zscore"),
        ({"maps": None, "normalize": "l1"}, "give maps"),
        ({"maps": None, "maps_dtype": "exact"}, "give maps"),
        ({"maps_dtype": "bfloat16"}, "maps_dtype must be one of rounded, exact, float16, uint8"),
        ({"normalize": "zscore", "stats": False}, "leave stats on"),
        ({"normalize": "batchnorm", "stage": "act"}, "follows the norm already"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        extract(tmp_path / "run.h5", **options)
    assert list(tmp_path.iterdir()) == []
