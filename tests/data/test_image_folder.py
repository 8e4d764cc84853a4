import numpy as np
import pytest
import torch
from PIL import Image

from fastconv.data import open_data
from fastconv.data.image_folder import ImageFolder
from fastconv.errors import DataError, InputError


def write(path, color=(255, 0, 51), size=(20, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def test_flat_folder_in_order_of_names(tmp_path):
    for name in ("b.png", "a.JPG", "c.bmp"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    write(tmp_path / ".hidden.png")
    samples = open_data(ImageFolder(tmp_path))
    assert samples.keys() == ["a.JPG", "b.png", "c.bmp"]
    ((x, label),) = samples.batches([[1, 2]])
    assert label is None
    assert x.shape == (2, 3, 10, 20)
    assert x[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


def test_one_folder_a_class(tmp_path):
    for name in ("dog/1.png", "cat/2.png", "cat/1.png"):
        write(tmp_path / name)
    samples = open_data(ImageFolder(tmp_path))
    assert samples.keys() == ["cat/1.png", "cat/2.png", "dog/1.png"]
    ((_, label),) = samples.batches([range(3)])
    assert label.tolist() == [0, 0, 1]


def test_size_resizes_the_shorter_side_and_crops_the_centre(tmp_path):
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 15:25] = 255  # the centre square
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = ImageFolder(tmp_path, size=10)[0]
    assert x.shape == (3, 10, 10)
    assert x.min() == 1
    assert ImageFolder(tmp_path, size=33)[0].shape == (3, 33, 33)


def test_mean_and_std_apply_to_the_scaled_channels(tmp_path):
    write(tmp_path / "a.png")
    x = ImageFolder(tmp_path, mean=[0.5], std=[0.5, 0.25, 1.0])[0]
    assert x[:, 0, 0].tolist() == pytest.approx([1, -2, -0.3])
    assert x.dtype == torch.float32


def test_images_of_different_sizes_are_named(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "b.png", size=(8, 8))
    samples = open_data(ImageFolder(tmp_path))
    with pytest.raises(
        DataError, match=r"sample 1 has shape \[3, 8, 8\], sample 0 has \[3, 10, 20"
    ):
        list(samples.batches([range(2)]))


def test_a_broken_or_deep_image_says_which(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n")
    Image.fromarray(np.zeros((10, 20), np.uint16)).save(tmp_path / "c.png")
    samples = open_data(ImageFolder(tmp_path))
    with pytest.raises(DataError, match=r"sample 1 cannot be read: UnidentifiedImageError.*b\.png"):
        list(samples.batches([[1]]))
    with pytest.raises(DataError, match=r"c\.png holds more than 8 bits"):
        list(samples.batches([[2]]))


def test_unusable_folders_and_options(tmp_path):
    with pytest.raises(DataError, match="no images in"):
        ImageFolder(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        ImageFolder(tmp_path / "none")
    write(tmp_path / "a.png")
    for options in ({"size": 0}, {"std": [0]}, {"mean": [1, 2]}):
        with pytest.raises(InputError):
            ImageFolder(tmp_path, **options)
