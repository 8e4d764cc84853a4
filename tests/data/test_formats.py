"""One real file of every format, read through a folder."""

import gzip
import io

import numpy as np
import pytest
import torch
from helpers.media import shades, write_dicom, write_video
from PIL import Image

from fastconv.data import open_data
from fastconv.data.formats import ReadAs, format_of
from fastconv.data.media_folder import MediaFolder
from fastconv.errors import DataError, InputError


def only(folder, **options):
    """The only sample of a folder, without channels that repeat the first."""
    found = MediaFolder(folder, **options)
    assert len(found) == 1
    x = found[0]
    assert x.dtype == torch.float32
    return x


def test_grey_pictures_of_16_bits_are_scaled_by_the_range_of_their_dtype(tmp_path):
    pixels = shades(6, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = only(tmp_path)
    assert x.shape == (3, 6, 8)
    assert torch.equal(x[2], torch.from_numpy(pixels.astype(np.float32)) / 65535)


def test_a_range_of_values_becomes_0_to_1_and_what_is_outside_is_cut(tmp_path):
    Image.fromarray(shades(6, 8)).save(tmp_path / "a.tif")
    x = only(tmp_path, value_range=(1000, 3000), channels=1)
    expected = ((shades(6, 8).astype(np.float64) - 1000) / 2000).clip(0, 1)
    assert x[0].numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_tiff_of_one_channel_keeps_its_depth(tmp_path, dtype):
    pixels = shades(6, 8, dtype=dtype, high=3.5 if dtype == np.float32 else 40000)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    x = only(tmp_path, channels=1)[0].numpy()
    full = 1 if dtype == np.float32 else 65535
    assert np.array_equal(x, pixels.astype(np.float32) / np.float32(full))


TIFFS = {
    "16-bit colour": (shades(6, 8, 3), {"photometric": "rgb"}, 65535, 0),
    "planes of colour": (shades(3, 6, 8), {"photometric": "rgb", "planarconfig": 2}, 65535, 0),
    "signed": (shades(6, 8, dtype=np.int16, high=30000), {}, 65535, 32768),
    "32 bits": (shades(6, 8, dtype=np.uint32, high=4e9), {}, 2**32 - 1, 0),
    "float64": (shades(6, 8, dtype=np.float64, high=2), {}, 1, 0),
    "big": (shades(6, 8, 3), {"photometric": "rgb", "bigtiff": True}, 65535, 0),
    "compressed": (shades(6, 8, 3), {"photometric": "rgb", "compression": "lzw"}, 65535, 0),
    "tiles": (shades(32, 48), {"tile": (16, 16), "compression": "zlib"}, 65535, 0),
}


@pytest.mark.parametrize("case", TIFFS)
def test_deep_tiff(tmp_path, case):
    tifffile = pytest.importorskip("tifffile")
    pixels, options, full, low = TIFFS[case]
    if options.get("compression") == "lzw":
        pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", pixels, **{"photometric": "minisblack", **options})
    x = only(tmp_path).numpy()
    planes = np.moveaxis(pixels, -1, 0) if pixels.shape[-1] == 3 else pixels
    expected = (planes.astype(np.float64) + low) / full
    assert x == pytest.approx(np.broadcast_to(expected, x.shape), abs=1e-6)


def test_pages_of_a_deep_tiff_are_samples_and_are_read_one_by_one(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    stack = shades(5, 6, 8, 3)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb")
    folder = MediaFolder(tmp_path)
    assert folder.keys == [f"a.tif#{i}" for i in range(5)]
    for i in (3, 0, 4):
        assert folder[i].permute(1, 2, 0).numpy() == pytest.approx(stack[i] / 65535, abs=1e-6)


def test_a_tiff_with_many_channels_asks_for_their_number(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    cells = shades(6, 8, 5)
    tifffile.imwrite(tmp_path / "a.tif", cells, photometric="minisblack", planarconfig=1)
    with pytest.raises(DataError, match=r"a\.tif: it has 5 channels, not 3: give channels=5"):
        MediaFolder(tmp_path)[0]
    assert MediaFolder(tmp_path, channels=5)[0].shape == (5, 6, 8)


def test_a_tiff_whose_white_is_low_is_turned_over(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", shades(6, 8, high=3e4), photometric="miniswhite")
    assert only(tmp_path)[0].numpy() == pytest.approx(1 - shades(6, 8, high=3e4) / 65535, abs=1e-6)


def test_another_file_under_the_same_name_is_read_anew(tmp_path):
    for shade in (10, 20):
        Image.new("L", (4, 4), shade).save(tmp_path / "new.tif")
        (tmp_path / "new.tif").replace(tmp_path / "a.tif")
        assert only(tmp_path)[0, 0, 0] == pytest.approx(shade / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
def test_exif_orientation_is_applied_unless_pixels_are_wanted_as_stored(
    tmp_path, orientation, suffix
):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # bright at the top left
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / f"a{suffix}", exif=exif)
    as_seen, as_stored = only(tmp_path), only(tmp_path, as_stored=True)
    assert as_seen.shape == (3, 16, 24)
    assert as_seen[0].numpy() == pytest.approx(upright / 255, abs=0.05)
    assert as_stored[0].numpy() == pytest.approx(turned / 255, abs=0.05)


def test_every_page_of_a_tiff_has_an_orientation_of_its_own(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pixels = [shades(6, 8, high=255, dtype=np.uint8), shades(6, 8, 3)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for orientation in (6, 1, 8):
            for page in pixels:  # 8 bits for Pillow, 16 bits of colour for tifffile
                tag = (274, "H", 1, orientation, True)
                kind = "rgb" if page.ndim == 3 else "minisblack"
                writer.write(page, photometric=kind, extratags=[tag], metadata=None)
    folder, as_stored = MediaFolder(tmp_path), MediaFolder(tmp_path, as_stored=True)
    for i, turns in enumerate((-1, -1, 0, 0, 1, 1)):
        for _ in range(2):
            assert torch.equal(folder[i], as_stored[i].rot90(turns, (1, 2)))
        assert as_stored[i].shape == (3, 6, 8)


def test_channels_mix_colours_as_pillow_does_and_repeat_grey(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    grey = np.asarray(Image.fromarray(colours).convert("L")) / 255
    assert only(tmp_path, channels=1)[0].numpy() == pytest.approx(grey, abs=0.5 / 255 + 1e-6)


def test_transparency_is_left_out_and_palettes_are_resolved(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    opaque = np.dstack([colours, np.full((6, 8), 7, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "a.png")
    assert np.array_equal(only(tmp_path).permute(1, 2, 0).numpy(), np.float32(colours) / 255)
    palette = Image.new("RGB", (8, 6), (255, 0, 51)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "a.png")
    assert only(tmp_path)[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


def test_dicom_goes_through_rescale_and_window(tmp_path):
    pytest.importorskip("pydicom")
    stored = shades(6, 8, dtype=np.int16, high=2000)
    write_dicom(
        tmp_path / "a.dcm",
        stored,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=40,
        WindowWidth=400,
    )
    x = only(tmp_path)[0].numpy()
    hounsfield = stored.astype(np.float64) - 1024
    window = ((hounsfield - 39.5) / 399 + 0.5).clip(0, 1)  # DICOM PS3.3 C.11.2.1.2.1
    assert x == pytest.approx(window, abs=1e-6)
    wide = only(tmp_path, value_range=(-1000, 500))[0].numpy()
    assert wide == pytest.approx(((hounsfield + 1000) / 1500).clip(0, 1), abs=1e-6)


def test_dicom_without_a_window_is_scaled_by_its_stored_bits_and_monochrome1_is_turned_over(
    tmp_path,
):
    pytest.importorskip("pydicom")
    stored = shades(6, 8, dtype=np.uint16, high=4095)
    write_dicom(tmp_path / "a.dcm", stored)
    assert only(tmp_path)[0].numpy() == pytest.approx(stored / 4095, abs=1e-6)
    write_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1")
    assert only(tmp_path)[0].numpy() == pytest.approx(1 - stored / 4095, abs=1e-6)
    ranged = only(tmp_path, value_range=(0, 1000))[0].numpy()
    assert ranged == pytest.approx(1 - (stored / 1000).clip(0, 1), abs=1e-6)


def test_dicom_frames_are_samples_and_a_file_needs_no_suffix(tmp_path):
    pytest.importorskip("pydicom")
    frames = shades(3, 6, 8, dtype=np.uint16, high=4095)
    write_dicom(tmp_path / "IM0001", frames)
    folder = MediaFolder(tmp_path)
    assert folder.keys == ["IM0001#0", "IM0001#1", "IM0001#2"]
    assert folder[2][0].numpy() == pytest.approx(frames[2] / 4095, abs=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_volumes_come_in_stored_order_with_slope_and_intercept(tmp_path, suffix):
    nibabel = pytest.importorskip("nibabel")
    stored = shades(5, 6, 7, 2, dtype=np.int16, high=1000)
    image = nibabel.Nifti1Image(stored, np.diag([-1, 1, 1, 1]))
    image.header.set_slope_inter(2, -100)
    nibabel.save(image, tmp_path / f"a{suffix}")
    saved = np.asarray(nibabel.load(tmp_path / f"a{suffix}").dataobj)
    folder = MediaFolder(tmp_path)
    assert folder.keys == [f"a{suffix}#0", f"a{suffix}#1"]
    assert folder[1].shape == (1, 5, 6, 7)
    assert folder[1][0].numpy() == pytest.approx(saved[..., 1])
    scaled = MediaFolder(tmp_path, value_range=(0, 500))[1][0].numpy()
    assert scaled == pytest.approx((saved[..., 1] / 500).clip(0, 1), abs=1e-6)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_sounds_are_channels_by_time_at_full_scale(tmp_path, suffix):
    soundfile = pytest.importorskip("soundfile")
    wave = np.sin(np.arange(1600)[:, None] / [7, 11]) * [0.9, 0.3]
    soundfile.write(tmp_path / f"a{suffix}", wave, 16000)
    x = only(tmp_path)
    assert x.shape == (2, 1600)
    assert x.numpy() == pytest.approx(wave.T, abs=0.05 if suffix == ".ogg" else 1e-4)
    mixed = only(tmp_path, channels=1)
    assert mixed[0].numpy() == pytest.approx(x.mean(0).numpy())


def test_sounds_of_another_rate_are_refused_by_name(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for name, rate in (("a.wav", 16000), ("b.wav", 8000)):
        soundfile.write(tmp_path / name, np.zeros(100), rate)
    folder = MediaFolder(tmp_path)
    assert folder[0].shape == (1, 100)
    with pytest.raises(DataError, match=r"b\.wav: it has 8000 samples a second, others .*16000"):
        folder[1]


def test_videos_are_frames_in_order(tmp_path):
    pytest.importorskip("av")
    frames = shades(7, 16, 24, 3, dtype=np.uint8, high=255)
    write_video(tmp_path / "a.mkv", frames)
    x = only(tmp_path)
    assert x.shape == (3, 7, 16, 24)
    assert np.array_equal(x.permute(1, 2, 3, 0).numpy(), frames.astype(np.float32) / 255)
    few = only(tmp_path, frames=3)  # the first, the middle one and the last
    assert torch.equal(few, x[:, [0, 3, 6]])
    many = only(tmp_path, frames=13, size=(8, 12))
    assert many.shape == (3, 13, 8, 12)


def test_a_video_that_was_held_upright_is_turned_as_players_do(tmp_path):
    pytest.importorskip("av")
    frames = shades(3, 16, 32, 3, dtype=np.uint8, high=255)
    write_video(tmp_path / "a.mp4", frames, codec="mpeg4")
    stored = only(tmp_path)
    data = (tmp_path / "a.mp4").read_bytes()
    track = data.index(b"tkhd") + 4 + 40  # its matrix: x' = -y, y' = x, a turn clockwise
    one = (0x10000).to_bytes(4, "big")
    minus = (0xFFFF0000).to_bytes(4, "big")
    zero = bytes(4)
    turned = zero + one + zero + minus + zero + zero
    (tmp_path / "a.mp4").write_bytes(data[:track] + turned + data[track + 24 :])
    assert torch.equal(only(tmp_path), stored.rot90(-1, (2, 3)))
    assert torch.equal(only(tmp_path, as_stored=True), stored)


def test_files_without_their_package_ask_for_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "fastconv.data.formats.nifti", None)
    with pytest.raises(InputError, match=r"\.nii files need nibabel: pip install 'fastconv\[med"):
        MediaFolder(tmp_path)


BROKEN = ["a.png", "a.tif", "a.gif", "a.dcm", "a.nii", "a.nii.gz", "a.wav", "a.flac", "a.mp4"]


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("content", [b"", b"nothing that can be read" * 9], ids=["empty", "text"])
def test_a_broken_file_of_any_format_is_named_and_can_be_skipped(tmp_path, name, content):
    for package in ("pydicom", "nibabel", "soundfile", "av", "tifffile"):
        pytest.importorskip(package)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"sample 0 .*{name}"):
        open_data(MediaFolder(tmp_path))
    with pytest.raises(DataError, match="none of the 1 samples can be read"):
        open_data(MediaFolder(tmp_path), skip=True)


def test_readers_take_open_files_as_well_as_paths(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    soundfile = pytest.importorskip("soundfile")
    Image.fromarray(shades(6, 8)).save(tmp_path / "a.png")
    Image.fromarray(shades(6, 8)).save(tmp_path / "a.tif")
    soundfile.write(tmp_path / "a.wav", np.zeros(10), 8000)
    nibabel.save(
        nibabel.Nifti1Image(shades(2, 3, 4, dtype=np.int16), np.eye(4)), tmp_path / "a.nii"
    )
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    for name in ("a.png", "a.tif", "a.wav", "a.nii", "b.nii.gz"):
        path, module = tmp_path / name, format_of(name).module()
        opened = module.read(io.BytesIO(path.read_bytes()), 0, ReadAs()).values
        assert np.array_equal(opened, module.read(path, 0, ReadAs()).values), name
