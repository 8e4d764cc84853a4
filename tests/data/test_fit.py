import numpy as np
import pytest
import torch
from helpers.media import shades
from PIL import Image

from fastconv.data.fit import fit
from fastconv.data.media_folder import MediaFolder
from fastconv.errors import DataError, InputError

RAMP = shades(3, 10, 16, dtype=np.uint8, high=255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_crop_cuts_the_centre_out(dtype):
    values = RAMP.astype(dtype)
    assert np.array_equal(fit(values, (4, 10), "crop", 0), values[:, 3:7, 3:13])
    assert fit(values, (4, 10), "crop", 0).dtype == dtype


def test_pad_fills_up_at_the_end_so_that_positions_are_those_of_the_sample():
    found = fit(RAMP, (12, 17), "pad", 7)
    assert np.array_equal(found[:, :10, :16], RAMP)
    assert (found[:, 10:] == 7).all()
    assert (found[:, :, 16:] == 7).all()


def test_resize_stretches_and_cover_keeps_proportions_as_pillow_does():
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(RAMP, 0, -1)))
    stretched = np.asarray(picture.resize((8, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(np.moveaxis(fit(RAMP, (20, 8), "resize", 0), 0, -1), stretched)
    covering = np.asarray(picture.resize((8, 5), Image.Resampling.BILINEAR))
    assert np.array_equal(np.moveaxis(fit(RAMP, (5, 5), "cover", 0), 0, -1), covering[:, 2:7])


def test_values_of_more_than_8_bits_are_resized_without_rounding():
    wide = RAMP.astype(np.uint16) * 200
    found = fit(wide, (5, 8), "resize", 0)
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(
        np.asarray(
            Image.fromarray(wide[0].astype(np.float32)).resize((8, 5), Image.Resampling.BILINEAR)
        )
    )


def test_volumes_are_cut_filled_up_and_stretched():
    volume = shades(1, 4, 6, 8, dtype=np.float32, high=1)
    assert fit(volume, (2, 2, 2), "crop", 0).shape == (1, 2, 2, 2)
    assert fit(volume, (5, 7, 9), "pad", 0).sum() == pytest.approx(volume.sum())
    assert fit(volume, (8, 3, 8), "resize", 0).shape == (1, 8, 3, 8)


@pytest.mark.parametrize(
    ("shape", "size", "how", "message"),
    [
        ((3, 8, 8), (9, 4), "crop", r"size \[8, 8\] is smaller than \[9, 4\]: .* fit pad"),
        ((3, 8, 8), (9, 4), "pad", r"size \[8, 8\] is larger than \[9, 4\]: .* fit crop"),
        ((1, 100), (50,), "resize", "sounds do not fit by resize: give --fit crop or pad"),
        ((1, 100), (50,), "cover", "sounds do not fit by cover"),
        ((1, 4, 4, 4), (2, 2, 2), "cover", "volumes do not fit by cover"),
    ],
)
def test_what_does_not_fit_says_what_would(shape, size, how, message):
    with pytest.raises((DataError, InputError), match=message):
        fit(np.zeros(shape, np.uint8), size, how, 0)


def test_without_a_size_samples_come_to_that_of_the_first(tmp_path):
    for name, size in (("a.png", (8, 6)), ("b.png", (12, 10)), ("c.png", (5, 4))):
        Image.new("L", size, 255).save(tmp_path / name)
    assert [x.shape for x in MediaFolder(tmp_path, fit="resize")] == [(3, 6, 8)] * 3
    crops = MediaFolder(tmp_path, fit="crop")
    assert crops[1].shape == (3, 6, 8)
    with pytest.raises(DataError, match=r"c\.png: its size \[4, 5\] is smaller than \[6, 8\]"):
        crops[2]


def test_padding_is_black_whatever_the_scaling(tmp_path):
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(tmp_path / "a.png")
    folder = MediaFolder(tmp_path, size=6, fit="pad", value_range=(1000, 5000), mean=[0.5])
    assert folder[0][0].unique().tolist() == pytest.approx([-0.5, 0.0])


def test_rectangular_sizes_and_sizes_of_other_dimensions(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    assert MediaFolder(tmp_path, size=(4, 12))[0].shape == (3, 4, 12)
    with pytest.raises(InputError, match="size must be 1 or 2 numbers here"):
        MediaFolder(tmp_path, size=(4, 4, 4))[0]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": ()},
        {"fit": "squeeze"},
        {"value_range": (3, 3)},
        {"value_range": (1,)},
        {"channels": 0},
        {"frames": 0},
        {"mean": [0.5, 0.5], "channels": 1},
    ],
)
def test_options_out_of_their_range_are_refused(tmp_path, options):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"must be"):
        MediaFolder(tmp_path, **options)


def test_mean_and_std_of_one_channel(tmp_path):
    Image.new("L", (4, 4), 255).save(tmp_path / "a.png")
    x = MediaFolder(tmp_path, channels=1, mean=[0.5], std=[0.25])[0]
    assert torch.equal(x, torch.full((1, 4, 4), 2.0))
