"""Figures compared by what is drawn in them: images, lines, labels, limits."""

import os
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from export.conftest import HOSTILE
from matplotlib.image import AxesImage
from PIL import Image

import fastconv.export
from fastconv.errors import InputError, OutputError, UnknownLayerError
from fastconv.export.plots import canvas, filters, kernels, maps, statistics, tables

NAMES = ("two", "one", "three", "none", "single filter", "dead", "zero", "nan", "point", HOSTILE)


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings(), canvas.style():
        warnings.simplefilter("error")
        yield


def drawn(figure):
    """The axes that hold something to see; checks that each says what its axes are."""
    figure.canvas.draw()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    for axes in shown:
        assert axes.has_data() or axes.texts, axes.get_title()
    words = [text.get_text() for text in (figure._supxlabel, figure._supylabel) if text]
    words += [label for axes in shown for label in (axes.get_xlabel(), axes.get_ylabel())]
    assert any(words)
    return shown


def images(figure):
    return [image for axes in figure.axes for image in axes.images if isinstance(image, AxesImage)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("draw", [kernels.kernels, filters.filters, statistics.filter_statistics])
def test_every_layer_has_a_picture_without_a_warning(odd_run, draw, name):
    figure = draw(odd_run[name])
    if draw is kernels.kernels and odd_run[name].weight is None:
        assert figure is None
    else:
        assert drawn(figure)


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_drawn_in_input_pixels_with_a_scale(odd_run, name):
    layer = odd_run[name]
    figure = maps.maps(layer, odd_run)
    shown = drawn(figure)
    labels = {axes.get_xlabel() for axes in shown} | {axes.get_ylabel() for axes in shown}
    assert any("activation" in label for label in labels)
    if len(layer.info.size) == 2:
        assert any("x (input pixels)" in label for label in labels)
        assert shown[0].get_xlim() == (0, 9) and shown[0].get_ylim() == (9, 0)
        left, right, bottom, top = images(figure)[0].get_extent()
        assert (right - left, bottom - top) == layer.info.size  # a position advances by one pixel
        assert {image.get_cmap().name for image in images(figure)} == {"viridis"}


def test_a_map_is_drawn_as_it_was_kept(odd_run):
    figure = maps.maps(odd_run["two"], odd_run)
    chosen = [axes for axes in figure.axes if axes.get_title().startswith("sample")]
    for axes in chosen:
        sample = int(axes.get_title().split()[1])
        number = int(figure.axes[0].get_ylabel().split()[1])
        shown = axes.images[0].get_array()
        np.testing.assert_array_equal(shown, odd_run["two"].map(sample)[number])


def test_maps_lie_over_the_picture_where_the_file_keeps_it(odd_run, monkeypatch):
    picture = np.full((3, 3, 3), 90, np.uint8)  # of 9 x 9 pixels, reduced
    monkeypatch.setattr(type(odd_run), "thumbnail", lambda run, sample: picture)
    for axes in maps.maps(odd_run["two"], odd_run).axes[:1]:
        below, above = axes.images
        assert below.get_extent() == [0, 9, 9, 0] and (below.get_array() == 90).all()
        assert above.get_alpha() < 1 and axes.get_xlim() == (0, 9)


@pytest.mark.parametrize("name", NAMES)
def test_surfaces_are_left_out_where_a_map_has_no_extent(odd_run, name):
    figure = maps.surfaces(odd_run[name], odd_run)
    assert (figure is None) == (name in ("none", "point", "nan"))
    if figure is not None:
        assert drawn(figure)[0].get_zlabel() == "activation"


@pytest.mark.parametrize("name", ["two", "three", "point"])
def test_weights_are_on_one_scale_with_zero_in_its_middle(odd_run, name):
    weight = odd_run[name].weight
    (image, *_) = images(kernels.kernels(odd_run[name]))
    peak = np.abs(weight).max()
    assert image.get_clim() == pytest.approx((-peak, peak))
    shown = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_array_equal(np.sort(shown[np.isfinite(shown)]), np.sort(weight.ravel()))


def test_kernels_of_one_dimension_are_waveforms(odd_run):
    figure = kernels.kernels(odd_run["one"])
    weight = odd_run["one"].weight
    for axes, kernel in zip(figure.axes, weight, strict=False):
        curves = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 3]
        np.testing.assert_array_equal(curves, kernel)
        assert sum(axes.get_ylim()) == pytest.approx(0)


def test_filters_side_by_side_show_the_stored_patches(odd_run):
    layer = odd_run["two"]
    figure = filters.filters(layer)
    numbers = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel().startswith("filter")]
    first = int(numbers[0].split()[1])
    titled = [axes for axes in figure.axes if ", sample" in axes.get_title()]
    np.testing.assert_array_equal(titled[0].images[0].get_array(), layer.patch(first, 0))
    value, sample = layer.topk.values[first, 0], layer.topk.sample[first, 0]
    assert titled[0].get_title() == f"{value:.3g}, sample {sample}"


def test_statistics_are_those_of_the_file(odd_run):
    stats = odd_run["dead"].stats
    figure = statistics.filter_statistics(odd_run["dead"])
    assert "4 dead" in figure._suptitle.get_text()
    means = next(line for line in figure.axes[0].lines if line.get_label() == "mean")
    np.testing.assert_array_equal(means.get_ydata(), stats["mean"])
    low, high = figure.axes[0].get_ylim()
    assert low < stats["min"].min() and stats["max"].max() < high


def test_layers_without_values_say_so(odd_run):
    for draw in (statistics.filter_statistics, filters.filters):
        words = [text.get_text() for axes in draw(odd_run["nan"]).axes for text in axes.texts]
        assert "no value is finite" in words


def test_the_network_compares_all_layers(odd_run):
    figure = statistics.network_statistics([odd_run[name] for name in odd_run.layers])
    shown = drawn(figure)
    dead = shown[2].patches[0].get_data().values
    assert dead[odd_run.layers.index("dead")] == 1 and dead[odd_run.layers.index("two")] == 0


def class_table(filters=6, classes=("cat", "dog", '<i>$x"')):
    rng = np.random.default_rng(0)
    rows = [(f, c) for f in range(filters) for c in classes]
    table = pd.DataFrame(rows, columns=["filter", "class"])
    return table.assign(layer="two", effect=rng.normal(size=len(rows)), selectivity=0.5)


def test_class_selectivity_is_centred_at_zero():
    table = class_table()
    figure = tables.class_selectivity("two", table)
    shown = drawn(figure)
    (image, *_) = images(figure)
    peak = table["effect"].abs().max()
    assert image.get_clim() == pytest.approx((-peak, peak))
    assert [t.get_text() for t in shown[0].get_xticklabels()] == ['<i>$x"', "cat", "dog"]
    rows = [int(t.get_text()) for t in shown[0].get_yticklabels()]
    wide = table.pivot(index="filter", columns="class", values="effect")
    np.testing.assert_array_equal(image.get_array(), wide.loc[rows].to_numpy())
    assert tables.class_selectivity("two", table[:0]) is None


def test_condition_responses_show_change_and_invariance():
    rows = [(f, c) for f in range(3) for c in ("rot15", "noise")]
    table = pd.DataFrame(rows, columns=["filter", "condition"])
    table = table.assign(mean_change=np.arange(6) - 2.0, invariance=np.linspace(0, 1, 6))
    figure = tables.condition_responses("two", table)
    drawn(figure)
    change, invariance = images(figure)[:2]
    assert change.get_clim() == (-3, 3) and invariance.get_clim() == (0, 1)
    assert change.get_array().shape == (3, 2)
    assert tables.condition_responses("two", table[:0]) is None


def test_files_lie_in_a_folder_per_layer(odd_run, tmp_path):
    folder = tmp_path / "deep" / "figures"
    made = fastconv.export.figures(odd_run, folder, layers=["one", "non*"])
    found = {path.relative_to(folder).as_posix() for path in made}
    both = ("filters", "statistics", "maps", "classes")  # the samples have labels
    expected = {f"layers/{layer}/{n}.png" for layer in ("one", "none") for n in both}
    assert found == expected | {
        "network.png",
        "layers/one/kernels.png",
        "layers/one/surfaces.png",
    }
    assert {path for path in folder.rglob("*") if path.is_file()} == set(made)


@pytest.mark.parametrize(
    ("format", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_formats(bare_run, tmp_path, format, start):
    for path in fastconv.export.figures(bare_run, tmp_path, format=format):
        assert path.suffix == f".{format}" and path.read_bytes().startswith(start)


def test_hostile_names_stay_in_the_folder(odd_run, tmp_path):
    folder = tmp_path / "a" / "b" / "figures"
    made = fastconv.export.figures(odd_run, folder, layers=[HOSTILE])
    assert all(folder.resolve() in path.resolve().parents for path in made)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents] == []
    assert all(np.asarray(Image.open(path)).std() > 0 for path in made)


def test_a_run_that_keeps_weights_alone_has_their_picture(bare_run, tmp_path):
    made = fastconv.export.figures(bare_run, tmp_path)
    assert [path.name for path in made] == ["kernels.png", "filters.png"]


def test_the_style_of_the_caller_is_left_alone(bare_run, tmp_path):
    before = dict(matplotlib.rcParams)
    fastconv.export.figures(bare_run, tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_the_same_run_gives_the_same_bytes(bare_run, tmp_path):
    for format in ("svg", "pdf"):
        first, again = (
            fastconv.export.figures(bare_run, tmp_path / n, format=format) for n in ("a", "b")
        )
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


def test_bad_input_is_told_in_one_line(bare_run, tmp_path, monkeypatch):
    export = fastconv.export.figures
    with pytest.raises(InputError, match=r"png, svg, pdf, got 'gif'"):
        export(bare_run, tmp_path, format="gif")
    with pytest.raises(UnknownLayerError, match="did you mean bare"):
        export(bare_run, tmp_path, layers="bar")
    with pytest.raises(UnknownLayerError, match=r"fits 'x\*'"):
        export(bare_run, tmp_path, layers="x*")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file; name a folder"):
        export(bare_run, tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        export(bare_run, tmp_path / "file" / "below")
    export(bare_run, tmp_path / "full")
    with pytest.raises(OutputError, match=r"already holds \*.png"):
        export(bare_run, tmp_path / "full")
    export(bare_run, tmp_path / "full", format="svg")  # another format beside it


def test_a_folder_that_cannot_be_written_is_told(bare_run, tmp_path, request):
    folder = tmp_path
    if os.geteuid() == 0:  # who may write anywhere but there
        folder = request.getfixturevalue("small_disk")("1m", "ro")
    else:
        folder.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        fastconv.export.figures(bare_run, folder)


def test_without_matplotlib_the_extra_is_named(bare_run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(
        InputError, match=r"matplotlib is not installed; pip install 'fastconv\[fig"
    ):
        fastconv.export.figures(bare_run, tmp_path)
