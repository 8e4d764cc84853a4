import numpy as np
import pytest
import torch
from PIL import Image

from fastconv.data import open_data
from fastconv.data.media_folder import MediaFolder
from fastconv.errors import DataError, InputError


def write(path, color=(255, 0, 51), size=(20, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def test_flat_folder_in_order_of_names(tmp_path):
    for name in ("b.png", "a.JPG", "c.bmp"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    write(tmp_path / ".hidden.png")
    with pytest.warns(UserWarning, match="notes.txt"):
        samples = open_data(MediaFolder(tmp_path))
    assert samples.keys() == ["a.JPG", "b.png", "c.bmp"]
    ((x, label),) = samples.batches([[1, 2]])
    assert label is None
    assert x.shape == (2, 3, 10, 20)
    assert x[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


def test_one_folder_a_class(tmp_path):
    for name in ("dog/1.png", "cat/2.png", "cat/1.png"):
        write(tmp_path / name)
    samples = open_data(MediaFolder(tmp_path))
    assert samples.keys() == ["cat/1.png", "cat/2.png", "dog/1.png"]
    ((_, label),) = samples.batches([range(3)])
    assert label.tolist() == [0, 0, 1]


def test_size_resizes_the_shorter_side_and_crops_the_centre(tmp_path):
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 15:25] = 255  # the centre square
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = MediaFolder(tmp_path, size=10)[0]
    assert x.shape == (3, 10, 10)
    assert x.min() == 1
    assert MediaFolder(tmp_path, size=33)[0].shape == (3, 33, 33)


def test_mean_and_std_apply_to_the_scaled_channels(tmp_path):
    write(tmp_path / "a.png")
    x = MediaFolder(tmp_path, mean=[0.5], std=[0.5, 0.25, 1.0])[0]
    assert x[:, 0, 0].tolist() == pytest.approx([1, -2, -0.3])
    assert x.dtype == torch.float32


def test_images_of_different_sizes_are_named(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "b.png", size=(8, 8))
    samples = open_data(MediaFolder(tmp_path))
    with pytest.raises(
        DataError, match=r"sample 1 has shape \[3, 8, 8\], sample 0 has \[3, 10, 20"
    ):
        list(samples.batches([range(2)]))


def test_a_broken_image_says_which(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(
        tmp_path / "c.jpg"
    )
    (tmp_path / "c.jpg").write_bytes((tmp_path / "c.jpg").read_bytes()[:900])
    samples = open_data(MediaFolder(tmp_path))
    with pytest.raises(DataError, match=r"sample 1 cannot be read: UnidentifiedImageError.*b\.png"):
        list(samples.batches([[1]]))
    with pytest.raises(DataError, match=r"sample 2 cannot be read: OSError: .*truncated.*c\.jpg"):
        list(samples.batches([[2]]))


def test_folders_are_read_to_any_depth(tmp_path):
    for name in ("a/x/y/1.png", "a/2.png", "b/z/3.png"):
        write(tmp_path / name)
    folder = MediaFolder(tmp_path)
    assert folder.keys == ["a/2.png", "a/x/y/1.png", "b/z/3.png"]
    assert folder.labels == [0, 0, 1]


def test_a_picture_beside_the_class_folders_has_no_class_and_is_named(tmp_path):
    for name in ("a/1.png", "b/2.png", "stray.png"):
        write(tmp_path / name)
    with pytest.warns(UserWarning, match=r"1 file \(stray\.png\) of no class \(label -1\)"):
        folder = MediaFolder(tmp_path)
    assert dict(zip(folder.keys, folder.labels, strict=True)) == {
        "a/1.png": 0,
        "b/2.png": 1,
        "stray.png": -1,
    }


def test_files_that_are_left_out_are_counted_and_named(tmp_path):
    write(tmp_path / "a.png")
    for name in ("labels.csv", "deep/notes.txt", "model.pt", "z.doc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no picture")
    expected = r"4 files \(deep/notes\.txt, labels\.csv, model\.pt and 1 more\) left out"
    with pytest.warns(UserWarning, match=expected):
        assert len(MediaFolder(tmp_path)) == 1


def test_a_folder_that_links_to_itself_ends(tmp_path):
    write(tmp_path / "a/1.png")
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert MediaFolder(tmp_path).keys == ["a/1.png"]


def test_every_page_of_a_tiff_and_every_frame_of_a_gif_is_a_sample(tmp_path):
    pages = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in (0, 51, 255)]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:])
    write(tmp_path / "c.tif", (0, 0, 0))
    folder = MediaFolder(tmp_path)
    assert folder.keys == [
        *(f"a.gif#{i}" for i in range(3)),
        *(f"b.tif#{i}" for i in range(3)),
        "c.tif",
    ]
    assert [folder[i][0, 0, 0].item() for i in (3, 5, 4)] == pytest.approx([0, 1, 0.2])
    assert [folder[i][0, 0, 0].item() for i in range(3)] == pytest.approx([0, 0.2, 1], abs=0.01)


def test_unusable_folders_and_options(tmp_path):
    with pytest.raises(DataError, match="no images in"):
        MediaFolder(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        MediaFolder(tmp_path / "none")
    write(tmp_path / "a.png")
    for options in ({"size": 0}, {"std": [0]}, {"mean": [1, 2]}):
        with pytest.raises(InputError):
            MediaFolder(tmp_path, **options)
