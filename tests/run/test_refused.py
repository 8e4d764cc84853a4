"""Arguments, data and models that `extract` refuses, with the reason."""

import pytest
import torch
from helpers.extracting import run
from helpers.networks import images, network
from torch import nn

import fastconv
from fastconv.errors import FastconvError, InputError, LayerError, OutputError


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": "3.cnv"}, LayerError, "3.conv"),
        ({"topk": -1}, InputError, "topk must be"),
        ({"stage": "relu"}, InputError, "stage must be one of conv, norm, act"),
        ({"order": "best"}, InputError, "largest, smallest, both"),
        ({"shard": (2, 2)}, InputError, "0 <= index < count"),
        ({"maps": [50]}, InputError, "no sample 50; the data set has 50"),
        ({"dtype": "int8"}, InputError, "bfloat16"),
        ({"batch_size": 0}, InputError, "batch_size"),
        ({"backend": "cudnn"}, InputError, "backend must be"),
        ({"data": images(0)}, InputError, "empty"),
        ({"data": torch.rand(9, 4, 20, 20)}, InputError, "3"),
        ({"stats": False, "topk": 0}, InputError, "nothing to measure"),
        ({"model": nn.Sequential(nn.Flatten())}, LayerError, "no convolution"),
        ({"conditions": {"x": abs}}, InputError, r"a function of \(batch, samples\)"),
    ],
)
def test_bad_arguments(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_a_device_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"device 'cuda' cannot be used: .*(CUDA|NVIDIA)"):
        run(tmp_path, device="cuda")
    assert list(tmp_path.iterdir()) == []


def test_bad_outputs(tmp_path):
    with pytest.raises(OutputError, match="no folder"):
        run(tmp_path / "missing")
    (tmp_path / "run.h5").write_text("notes")
    with pytest.raises(fastconv.errors.FileFormatError, match=r"run\.h5"):
        run(tmp_path)
    assert (tmp_path / "run.h5").read_text() == "notes"


def test_samples_of_different_shapes_name_the_index(tmp_path):
    data = [images(1)[0] for _ in range(30)]
    data[17] = torch.rand(3, 21, 20)
    with pytest.raises(fastconv.errors.DataError, match="sample 17"):
        run(tmp_path, data=data, batch_size=8)


def test_a_dtype_that_the_device_lacks(tmp_path, monkeypatch):
    def refuse(device_type, dtype):
        raise RuntimeError("Current CUDA Device does not support bfloat16. Use float16.\nand more")

    monkeypatch.setattr(torch, "autocast", refuse)
    wanted = "dtype 'bfloat16' cannot be used on cpu: Current CUDA Device does not support bfloat16"
    with pytest.raises(InputError, match=wanted):
        run(tmp_path, dtype="bfloat16")


class Varying(nn.Module):
    """A convolution whose width follows the batch, read by nobody."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x[..., : 20 - int(x.shape[0] < 8)])


def test_a_last_layer_whose_size_changes_is_an_error(tmp_path):
    """Its flat positions would be read with the width of the first batch."""
    with pytest.raises(FastconvError, match=r"last gave \[\d+, 4, 20, 20\] for 8 samples"):
        fastconv.extract(Varying(), images(16), tmp_path / "run.h5", batch_size=8, progress=False)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((3, 20, 20), r"data\[None\]"),
        ((8, 20, 20), r"data\[:, None\]"),
        ((8, 20, 20, 3), "permute"),
    ],
)
def test_samples_of_another_form_are_told_what_is_missing(shape, remedy, tmp_path):
    with pytest.raises(InputError, match=remedy):
        fastconv.extract(network(), torch.zeros(shape), tmp_path / "run.h5", progress=False)
