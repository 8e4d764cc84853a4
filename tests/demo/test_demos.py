"""Both demos, from training to picture; `make demo` is the first of them."""

import numpy as np
import pytest
from PIL import Image

import fastconv
from fastconv.cli.main import main
from fastconv.demo import photos

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("which", "picture", "page", "samples", "layers"),
    [
        ("digits", "overview.png", "report.html", 1797, 3),
        ("photos", "photos.png", "photos.html", 975, 4),
    ],
)
def test_demo(tmp_path, capsys, which, picture, page, samples, layers):
    assert main(["demo", which, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "everything holds" in text
    assert f"open {tmp_path / 'out' / page} in a browser" in text.splitlines()[-1]
    assert (tmp_path / "out" / page).read_text("utf-8").startswith("<!doctype html>")
    with fastconv.open(tmp_path / "out" / f"{which}.h5") as run:
        assert run.layers == [f"conv{i + 1}" for i in range(layers)]
        assert run.samples.count == samples
        for name in run.layers:
            held = {"weights", "stats", "histogram", "topk", "bottomk", "samples", "activations"}
            held |= {"patches", "bottomk_patches"}
            assert held <= set(run[name].holds)
            assert (run[name].topk.sample >= 0).all()
    pixels = np.asarray(Image.open(tmp_path / "out" / picture))
    assert min(pixels.shape[:2]) > 1000
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 100  # something is drawn


def test_no_crop_overlaps_another_and_no_training_crop_reaches_the_unseen_part():
    loaded = photos.load()
    assert len(loaded) == 13
    crops = photos.Crops(loaded)
    assert len(set(crops.keys)) == len(crops)
    for number, photo in enumerate(loaded.values()):
        covered = np.zeros(photo.shape[1:], int)
        for n, y, x in crops.places:
            if n == number:
                covered[y : y + photos.SIZE, x : x + photos.SIZE] += 1
        assert covered.max() == 1
    seen = photos.Crops(loaded, (0, photos.SEEN), count=120)
    unseen = photos.Crops(loaded, (photos.SEEN, 1), count=30)
    for number in range(len(loaded)):
        last = max(x + photos.SIZE for n, _, x in seen.places if n == number)
        assert last <= min(x for n, _, x in unseen.places if n == number)
