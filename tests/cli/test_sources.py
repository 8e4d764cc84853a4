import h5py
import numpy as np
import pytest
from PIL import Image

from fastconv.cli.sources import open_source
from fastconv.data import open_data
from fastconv.errors import FastconvError, InputError

X = np.arange(60, dtype=np.float32).reshape(10, 1, 6)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.savez("x.npz", first=X, second=X * 2)
    np.save("objects.npy", np.array([{}, {}]), allow_pickle=True)
    with h5py.File("x.h5", "w") as file:
        file["group/x"] = X
    with h5py.File("two.h5", "w") as file:
        file["a"], file["b"] = X, X
    (tmp_path / "data.py").write_text("import torch\ndef load(): return torch.zeros(3, 1)\n")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "photos" / "a.png")
    return tmp_path


@pytest.mark.parametrize("spec", ["x.npy", "x.npz", "x.npz:first", "x.h5:group/x", "x.h5"])
def test_arrays_in_files(folder, spec):
    samples = open_data(open_source(spec))
    ((x, _),) = samples.batches([range(3, 7)])
    assert np.array_equal(x.numpy(), X[3:7])
    assert samples.input_dtype == "float32"


def test_named_arrays_factories_and_folders(folder):
    assert open_source("x.npz:second")[0, 0, 1] == 2
    assert open_source("data.py:load").shape == (3, 1)
    assert open_source("photos", size=4, mean=[0.5], std=[0.5])[0].shape == (3, 4, 4)


def test_an_npy_array_is_mapped_not_loaded(folder):
    assert isinstance(open_source("x.npy"), np.memmap)


def test_no_process_holds_an_hdf5_file_open(folder):
    data = open_source("x.h5")
    list(open_data(data).batches([range(4)]))
    with h5py.File("x.h5", "r+"):  # HDF5 refuses this while the file is open for reading
        pass


WRONG = {
    "none": "there is no none; DATA is a folder of images",
    "none.npy": "there is no file none.npy",
    "objects.npy": "objects.npy is not an array of numbers",
    "x.npz:third": "no array 'third'; it has first, second",
    "x.h5:nothing": "no data set 'nothing'; it has .*group/x",
    "two.h5": "holds 2 data sets; give one as two.h5:NAME",
    "x.npy.h5": "there is no file",
    "data.py:loadd": "no 'loadd'; near: load",
}


@pytest.mark.parametrize("spec", WRONG)
def test_wrong_data_says_what_to_do(folder, spec):
    with pytest.raises(FastconvError, match=WRONG[spec]):
        open_source(spec)


def test_image_options_are_refused_elsewhere(folder):
    with pytest.raises(InputError, match="--size, --mean and --std are for folders of images"):
        open_source("x.npy", size=4)
