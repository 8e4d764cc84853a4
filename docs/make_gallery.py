"""Makes the gallery page and its pictures from the files of the two demos.

python docs/make_gallery.py demo/photos.h5 demo/digits.h5
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

import fastconv
from fastconv import export

DOCS = Path(__file__).parent
IMAGES = DOCS / "images" / "gallery"
WIDTH = 1200  # pixels at most
INTRODUCTION = (
    "Made from the files of `fastconv demo photos` and `fastconv demo digits` by",
    "`docs/make_gallery.py`; [how to make such pictures](howto/pictures.md).",
)
SHOWN = (  # file, layer, figure, words
    ("photos", "conv1", "filters", "Filters side by side: the first layer of a network that tells "
     "photographs apart. Kernel, the places in the photographs that excite it most, and how often "
     "each value occurs (grey: up to 0)."),
    ("photos", "conv3", "filters", "Two layers on, a filter sees 37 x 37 pixels and likes "
     "things: rims, posts, galaxies."),
    ("photos", "conv1", "kernels", "Kernels, all on one scale with zero in its middle."),
    ("photos", "conv1", "maps", "Activation maps over the pictures that they were made of."),
    ("photos", "conv1", "surfaces", "The same maps as landscapes."),
    ("photos", "conv2", "conditions", "What a turn by 15 degrees, noise and blur change."),
    ("digits", "conv2", "statistics", "Every filter of a layer over the whole data set."),
    ("digits", "conv3", "classes", "How the classes excite the filters of the last layer."),
)  # fmt: skip


def main(photos: str, digits: str) -> None:
    shutil.rmtree(IMAGES, ignore_errors=True)
    IMAGES.mkdir(parents=True)
    lines = ["# Gallery", "", *INTRODUCTION, ""]
    with tempfile.TemporaryDirectory() as folder:
        for name, file in (("photos", photos), ("digits", digits)):
            wanted = [layer for run, layer, *_ in SHOWN if run == name]
            with fastconv.open(file) as run:
                export.figures(run, Path(folder) / name, layers=wanted)
                export.graph(run, IMAGES / f"{name}_network.svg", colour="dead")
        for name, layer, figure, words in SHOWN:
            made = Path(folder) / name / "layers" / layer / f"{figure}.png"
            if made.exists():
                picture = f"{name}_{layer}_{figure}.png"
                _shrink(made, IMAGES / picture)
                lines += [f"![{words}](images/gallery/{picture})", "", f"*{words}*", ""]
    words = "The network, its layers coloured by the share of dead filters."
    lines += [f"![{words}](images/gallery/photos_network.svg)", "", f"*{words}*", ""]
    (DOCS / "gallery.md").write_text("\n".join(lines), encoding="utf-8")


def _shrink(made: Path, picture: Path) -> None:
    """Fewer pixels and colours: the pictures are part of the repository."""
    image = Image.open(made).convert("RGB")
    image.thumbnail((WIDTH, 2 * WIDTH))
    image.quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
