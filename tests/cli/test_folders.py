"""A folder with one picture of every kind, and folders of volumes, sounds and videos."""

import io
import re
import tarfile

import numpy as np
import pytest
from helpers.media import shades, write_dicom, write_video
from PIL import Image

import fastconv
from fastconv.cli.main import main

NETS = """
from torch import nn
def sound(): return nn.Sequential(nn.Conv1d(1, 4, 5, stride=2))
def picture(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
def volume(): return nn.Sequential(nn.Conv3d(1, 4, 3))
def video(): return nn.Sequential(nn.Conv3d(3, 4, 3))
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def extract_and_verify(net, *options):
    """Through the command line; the keys of the samples."""
    assert main(["extract", f"nets.py:{net}", "data", "-o", "run.h5", "--quiet", *options]) == 0
    assert main(["verify", "run.h5", f"nets.py:{net}", "data", *options]) == 0
    with fastconv.open("run.h5") as run:
        assert (run["0"].stats["count"] > 0).all()
        return list(run.samples.keys)


def test_one_picture_of_every_kind(here, capsys):
    for package in ("pydicom", "tifffile"):
        pytest.importorskip(package)
    import tifffile

    colours = shades(20, 30, 3, dtype=np.uint8, high=255)
    for name in ("8-bit.png", "8-bit.jpg", "8-bit.bmp", "8-bit.webp", "8-bit.gif", "8-bit.ppm"):
        Image.fromarray(colours).save(here / name)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(colours).save(here / "turned.jpg", exif=exif)
    Image.fromarray(shades(20, 30)).save(here / "grey 16-bit.png")
    Image.fromarray(shades(20, 30, dtype=np.float32, high=1)).save(here / "float.tif")
    tifffile.imwrite(here / "colour 16-bit.tif", shades(20, 30, 3), photometric="rgb")
    tifffile.imwrite(here / "pages.tif", shades(3, 20, 30), photometric="minisblack")
    write_dicom(
        here / "slice.dcm",
        shades(20, 30, dtype=np.int16, high=2000),
        WindowCenter=900,
        WindowWidth=500,
    )
    (here / "notes.txt").write_text("beside them")
    keys = extract_and_verify("picture", "--size", "16", "--mean", "0.5", "--std", "0.25")
    assert len(keys) == 14
    assert [key for key in keys if "#" in key] == ["pages.tif#0", "pages.tif#1", "pages.tif#2"]
    remarks = capsys.readouterr().err.splitlines()
    assert remarks == ["fastconv: 1 file (notes.txt) left out of data: no known format"] * 2


def test_volumes(here):
    nibabel = pytest.importorskip("nibabel")
    for name, size in (("a.nii", (6, 7, 8)), ("b.nii.gz", (6, 9, 8))):
        image = nibabel.Nifti1Image(shades(*size, dtype=np.int16, high=900), np.eye(4))
        nibabel.save(image, here / name)
    options = ("--fit", "pad", "--size", "6,9,8", "--range=-100,900")
    assert extract_and_verify("volume", *options) == ["a.nii", "b.nii.gz"]


def test_sounds(here):
    soundfile = pytest.importorskip("soundfile")
    for name, length in (("low/a.wav", 400), ("high/b.flac", 500)):
        (here / name).parent.mkdir()
        soundfile.write(here / name, np.sin(np.arange(length) / 9), 8000)
    keys = extract_and_verify("sound", "--fit", "crop", "--size", "400")
    assert keys == ["high/b.flac", "low/a.wav"]


def test_videos(here):
    pytest.importorskip("av")
    for name, length in (("a.mp4", 5), ("b.mkv", 7)):
        write_video(here / name, shades(length, 16, 24, 3, dtype=np.uint8, high=255), "mpeg4")
    assert extract_and_verify("video", "--frames", "4") == ["a.mp4", "b.mkv"]


def test_tar_shards(here):
    for shard in range(2):
        with tarfile.open(here / f"{shard}.tar", "w") as tar:
            for i in range(3):
                held = io.BytesIO()
                Image.fromarray(shades(9 + i, 8, dtype=np.uint8, high=255)).save(held, "png")
                for name, content in ((f"{i}.png", held.getvalue()), (f"{i}.cls", b"%d" % i)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    keys = extract_and_verify("picture", "--size", "8")
    assert keys == [f"{shard}.tar/{i}.png" for shard in range(2) for i in range(3)]
    with fastconv.open("run.h5") as run:
        assert run.samples.labels.tolist() == [0, 1, 2] * 2


BAD = {
    "truncated": ([], r"truncated.*\(a\.jpg\)"),
    "sizes": ([], "sample 1 has shape"),
    "fit": (["--size", "40", "--fit", "crop"], r"is smaller than \[40, 40\]"),
    "range": (["--range", "3,1"], "LOW < HIGH"),
    "flag": (["--fit", "squeeze"], "fit must be one of cover, crop, pad, resize, got 'squeeze'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_and_options_are_one_line_and_exit_code_2(here, capsys, case):
    options, message = BAD[case]
    Image.fromarray(shades(20, 30, dtype=np.uint8, high=255)).save(here / "a.jpg")
    if case == "truncated":
        (here / "a.jpg").write_bytes((here / "a.jpg").read_bytes()[:-60])
    if case == "sizes":
        Image.new("RGB", (9, 9)).save(here / "b.png")
    try:
        code = main(["extract", "nets.py:picture", "data", "-o", "run.h5", *options])
    except SystemExit as stopped:
        code = stopped.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1
    assert re.search(message, lines[0])


def test_arrays_that_torch_cannot_use_are_one_line_and_exit_code_2(here, capsys):
    np.save("wide.npy", np.zeros((2, 3, 8, 8), np.longdouble))
    (here / "sparse.py").write_text("import torch\ndef f(): return torch.eye(4).to_sparse()\n")
    for data, message in (("wide.npy", "astype"), ("data/sparse.py:f", "to_dense")):
        assert main(["extract", "nets.py:picture", data, "-o", "run.h5"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_verify_takes_what_decides_what_a_sample_is(here, capsys):
    Image.fromarray(shades(20, 30)).save(here / "a.png")
    (here / "b.png").write_bytes(b"broken")
    job = ("nets.py:picture", "data", "--range", "0,9000", "--fit", "crop", "--size", "12")
    assert main(["extract", *job, "--on-error", "skip", "-o", "run.h5", "--quiet"]) == 0
    assert main(["verify", "run.h5", *job]) == 0  # the file says that some were skipped
    assert main(["verify", "run.h5", *job, "--on-error", "skip"]) == 0
    assert main(["verify", "run.h5", *job, "--on-error", "raise"]) == 2
    assert "b.png" in capsys.readouterr().err
    assert main(["verify", "run.h5", *job[:2], "--size", "12"]) == 1
    assert "FAIL  fingerprint: data differ" in capsys.readouterr().out
