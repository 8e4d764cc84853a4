"""What goes into the page, and what is refused."""

import base64
import hashlib
import html
import io
import json
import re
import zlib
from importlib import resources

import h5py
import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.report_runs import HOSTILE, plain_layers, write
from PIL import Image
from torch.utils.data import TensorDataset

import fastconv
from fastconv.cli.main import main
from fastconv.demo import digits
from fastconv.errors import FileFormatError, InputError, OutputError
from fastconv.export.report import distribution, page, pictures
from fastconv.export.report.budget import PICTURE_BYTES, Budget
from fastconv.export.report.chunks import PER_CHUNK
from fastconv.store.reader import Run

WEB = resources.files("fastconv.export.report") / "web"


class Page:
    """A written page, read again."""

    def __init__(self, path):
        self.text = path.read_text("utf-8")
        found = re.search(r'<script type="application/json" id="index">(.*?)</script>', self.text)
        self.index = json.loads(found[1])

    def chunk(self, number):
        found = re.search(rf'id="chunk-{number}">([^<]*)</script>', self.text)
        return base64.b64decode(found[1], validate=True)

    def arrays(self, reference):
        data, found = zlib.decompress(self.chunk(reference["chunk"])), {}
        for name, (dtype, shape, offset) in reference["arrays"].items():
            values = np.frombuffer(data, dtype, int(np.prod(shape)), offset)
            found[name] = values.reshape(shape)
        return found

    def picture(self, number, which):
        data = self.chunk(number)
        start, end = np.frombuffer(data, "<u4", 2, 4 * which)
        return np.asarray(Image.open(io.BytesIO(data[start:end])))


@pytest.fixture
def made(run_file, tmp_path):
    return Page(fastconv.report(run_file, tmp_path / "report.html"))


def test_the_page_holds_the_statistics_hits_and_patches_of_the_run(made, run_file):
    with fastconv.open(run_file) as run:
        for entry in made.index["runs"][0]["layers"]:
            layer = run[entry["name"]]
            table, hits = made.arrays(entry["table"]), made.arrays(entry["hits"])
            for name in ("mean", "max", "positive"):
                np.testing.assert_allclose(table[name], layer.stats[name], rtol=1e-6)
            np.testing.assert_allclose(table["q95"], layer.quantile(0.95)[:, 0], rtol=1e-6)
            weakest = made.arrays(entry["weakest"]["hits"])
            for found, stored in ((hits, layer.topk), (weakest, layer.bottomk)):
                np.testing.assert_array_equal(found["values"], stored.values)
                np.testing.assert_array_equal(found["box"], stored.box)
        conv1, layer = made.index["runs"][0]["layers"][0], run["conv1"]
        sides = ((conv1, layer.patches), (conv1["weakest"], layer.bottomk_patches))
        for side, stored in sides:
            strip = made.picture(side["patches"]["chunks"][0], 5)
            np.testing.assert_array_equal(strip, np.concatenate(list(stored[5]), 1))
        shown = made.arrays(made.index["runs"][0]["samples"]["table"])["sample"]
        assert set(layer.bottomk.sample[5]) <= set(shown)


def test_weights_and_maps_are_the_run_s_within_their_steps(made, run_file):
    with fastconv.open(run_file) as run:
        entry, layer = made.index["runs"][0]["layers"][0], run["conv1"]
        found = made.arrays(entry["weights"]["packs"][0])
        peak = found["peak"][:, None, None, None]
        near = np.abs(found["level"] / 127 * peak - layer.weight)
        assert (near <= peak / 250).all()
        maps = made.arrays(entry["maps"]["packs"][0])
        for row, sample in enumerate(entry["maps"]["samples"]):
            low, high = (maps[name][:, None, None] for name in ("low", "high"))
            value = low + (high - low) * maps["level"][:, row] / 255
            assert (np.abs(value - layer.map(sample)) <= (high - low) / 500 + 1e-6).all()


def test_histograms_are_those_of_the_values():
    info = synthetic.layer_info("conv1", 5)
    result, values = synthetic.layer_result(info, samples=200)

    class Layer:
        histogram = result.histogram, np.asarray(fastconv.histogram_edges())

    low, high = (np.asarray(result.stats[name], np.float64) for name in ("min", "max"))
    found = distribution.histograms(Layer, low, high)
    flat = values[:, 3].ravel()
    count, _ = np.histogram(flat, distribution.BINS, (low[3], high[3]))
    share = count / count.sum()
    assert found["tallest"][3] == pytest.approx(share.max(), rel=0.1)
    height = (found["height"][3] / 255.0) ** 2 * found["tallest"][3]
    assert np.abs(height - share).sum() < 0.12  # what the fine bins share out


def test_peaks_outlive_shortening():
    line = np.zeros((2, 1000))
    line[0, 137], line[1, 801] = 5, -7
    short = pictures.shorten(line, 160)
    assert short.shape == (2, 160)
    assert short[0].max() == 5 and short[1].min() == -7


def test_a_volume_becomes_a_film_strip(made, run_file):
    entry = made.index["runs"][0]["layers"][2]
    size = entry["patches"]
    assert (size["frames"], size["width"], size["height"]) == (3, 9, 3)
    strip = made.picture(size["chunks"][0], 1).astype(int)
    with fastconv.open(run_file) as run:
        patch = run["volume"].patch(1, 0)[0]  # red: [z, y, x]
    frames = np.concatenate(list(patch), axis=1)
    assert np.corrcoef(frames.ravel(), strip[:, :9, 0].ravel())[0, 1] > 0.98


class _Many(dict):
    @property
    def layers(self):
        return list(self)


@pytest.mark.parametrize(("layers", "filters"), [(50, 2048), (3, 64), (200, 4096)])
def test_the_budget_bounds_any_run(layers, filters):
    class Patches:
        shape = (filters, 9, 64, 64, 3)

    class Layer:
        holds = ("patches", "activations")
        info = synthetic.layer_info("conv", filters, size=56)
        patches = Patches

    budget = Budget.of([_Many(dict.fromkeys(range(layers), Layer))])
    tiles = layers * filters * budget.ranks
    assert tiles * budget.side**2 * 0.2 <= PICTURE_BYTES or (budget.ranks, budget.side) == (1, 32)
    assert layers * filters * budget.map_samples * min(56, budget.map_side) ** 2 <= 12e6
    if filters == 64:
        assert (budget.ranks, budget.side, budget.channels) == (16, 96, 16)


def test_large_layers_are_cut_into_chunks(tmp_path):
    file = write(tmp_path / "run.h5", [synthetic.layer_info("conv1", 2 * PER_CHUNK + 1)])
    found = Page(fastconv.report(file, tmp_path / "report.html"))
    entry = found.index["runs"][0]["layers"][0]
    assert len(entry["patches"]["chunks"]) == len(entry["weights"]["packs"]) == 3
    with fastconv.open(file) as run:
        last = np.concatenate(list(run["conv1"].patches[2 * PER_CHUNK]), 1)
    np.testing.assert_array_equal(found.picture(entry["patches"]["chunks"][2], 0), last)


def test_the_policy_allows_this_script_and_this_style_and_nothing_else(made):
    text = made.text
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    for tag in ("style", "script"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"\son\w+=", text.split("<script>")[0])
    assert not re.search(r'(src|href)="(?!#|data:,)', text)


def test_names_cannot_end_the_element_they_stand_in(tmp_path):
    file = write(tmp_path / "<title>&.h5", [synthetic.layer_info(HOSTILE, 3)], hostile=True)
    found = Page(fastconv.report(file, tmp_path / "report.html"))
    assert found.index["runs"][0]["layers"][0]["name"] == HOSTILE
    assert "onerror" not in re.sub(r"\\u003c[^<]*", "", found.text)
    assert "<img" not in found.text
    assert "<title>&lt;title&gt;&amp;.h5" in found.text


def test_insight_tables_become_columns_and_lists(run_file, tmp_path, insight):
    found = Page(fastconv.report(run_file, tmp_path / "report.html"))
    run = found.index["runs"][0]
    table = run["layers"][0]["table"]
    for name in ("orientation", "auroc_error", "best_class", "invariance rot15"):
        assert name in table["arrays"] and name in found.index["columns"]
    assert table["texts"]["kind"] == ["blob", "colour", "edge"]
    lists = found.arrays(run["layers"][0]["classes"])
    assert (np.diff(lists["auroc"], axis=1) <= 0).all()
    assert found.arrays(run["layers"][0]["responses"])["mean_change"].shape == (40, 2)
    assert run["misfires"] is not None and run["embedding"]["layer"] == "head"
    assert "classes" not in run["missing"]


def test_a_run_that_kept_everything_lacks_nothing(tmp_path, installed_insight):
    inputs, labels = digits.load()
    data = TensorDataset(inputs[:240], labels[:240])
    run = fastconv.extract(
        digits.build(),
        data,
        tmp_path / "run.h5",
        samples=True,
        outcomes=True,
        maps=range(4),
        conditions={"noise": fastconv.perturb.noise(0.3)},
        order="both",
        progress=False,
    )
    with run:
        page = Page(fastconv.report(run, tmp_path / "report.html"))
    found = page.index
    (entry,) = found["runs"]
    table = page.arrays(entry["samples"]["table"])
    assert (table["picture"][np.isin(table["sample"], range(4))] >= 0).all()  # behind the maps
    assert not entry["missing"] and not entry["lacks"]
    assert entry["conditions"] == ["noise"] and len(entry["classes"]) == 10
    assert entry["embedding"]["layer"] == "conv3" and entry["samples"]["pictures"]
    wanted = {"kind", "twin", "auroc_error", "best_class", "invariance noise", "q50"}
    assert wanted <= set(found["columns"])


def test_runs_of_other_settings_have_pages(tmp_path):
    def made(name, labels, **settings):
        data = TensorDataset(torch.randn(12, 3, 9, 9), labels)
        run = fastconv.extract(
            torch.nn.Conv2d(3, 4, 3), data, tmp_path / f"{name}.h5", progress=False, **settings
        )
        with run:
            return Page(fastconv.report(run, tmp_path / f"{name}.html")).index["runs"][0]

    assert made("weakest", torch.arange(12), order="smallest")["order"] == "smallest"
    few = made("few", -torch.ones(12).long(), topk=0, stats=False, quantiles=False, samples=True)
    assert few["layers"][0]["counts"] is None and not few["classes"]
    assert len(made("many", torch.arange(12) * 10**8)["classes"]) <= 2000


def test_what_a_run_lacks_is_named_with_the_call_that_keeps_it(bare_file, tmp_path):
    run = Page(fastconv.report(bare_file, tmp_path / "report.html")).index["runs"][0]
    lacks = " ".join(call for _, call in run["lacks"])
    calls = ("stats=True", "quantiles=True", "topk=9", "patches=True", "samples=True")
    for call in (*calls, 'order="both"'):
        assert call in lacks
    assert "samples=True" in run["missing"]["embedding"]


def test_two_runs_say_what_differs(tmp_path):
    first = write(tmp_path / "first.h5", plain_layers()[:2])
    second = write(tmp_path / "second.h5", [synthetic.layer_info("conv1", 40)], seed=3)
    found = Page(fastconv.report(first, tmp_path / "report.html", other=second)).index
    assert found["comparison"]["layers"] == ["conv1"]
    assert found["comparison"]["differences"][0] == "only in first.h5: layer1.0.conv/2#1"
    assert "change_mean" in found["runs"][0]["layers"][0]["table"]["arrays"]


def test_runs_that_do_not_fit_are_refused(tmp_path):
    first = write(tmp_path / "a.h5", [synthetic.layer_info("conv1", 5)])
    second = write(tmp_path / "b.h5", [synthetic.layer_info("conv1", 7)])
    with pytest.raises(InputError, match="conv1: 5 filters, and 7"):
        fastconv.report(first, tmp_path / "report.html", other=second)
    assert not (tmp_path / "report.html").exists()


def test_an_open_run_is_taken_and_left_open(run_file, tmp_path):
    with fastconv.open(run_file) as run:
        assert fastconv.report(run, tmp_path / "report.html").exists()
        assert isinstance(run, Run) and run["conv1"].stats["count"].shape == (40,)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("none/report.html", "there is no folder"),
        (".", "is a folder; name a file in it"),
        ("run.h5", "is no HTML page"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(run_file, out, message):
    before = run_file.read_bytes()
    with pytest.raises(OutputError, match=message):
        fastconv.report(run_file, run_file.parent / out)
    assert run_file.read_bytes() == before


def test_a_page_is_replaced_and_a_full_disk_leaves_the_old_one(run_file, small_disk):
    folder = small_disk("40k")
    old = folder / "report.html"
    old.write_text("<!doctype html>old")
    with pytest.raises(OutputError, match="No space left"):
        fastconv.report(run_file, old)
    assert old.read_text() == "<!doctype html>old"
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    small_disk("8m")
    fastconv.report(run_file, old)
    assert old.stat().st_size > 40_000


def test_the_command_line(run_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "run.h5"]) == 0
    assert "wrote report.html" in capsys.readouterr().out
    assert main(["report", "run.h5", "run.h5", "-o", "two.html"]) == 0
    for arguments, words in (
        (["none.h5"], "there is no file none.h5"),
        (["run.h5", "-o", "none/x.html"], "there is no folder none"),
        (["report.html"], "is no HDF5 file"),
    ):
        capsys.readouterr()
        assert main(["report", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_an_incomplete_run_is_refused(run_file, tmp_path):
    with h5py.File(run_file, "r+") as file:
        file.attrs.modify("complete", 0)
    with pytest.raises(FileFormatError, match="incomplete"):
        fastconv.report(run_file, tmp_path / "report.html")


def test_the_modules_share_one_scope_without_clashes():
    defined, sources = {}, {}
    for name in page.SCRIPTS:
        text = sources[name] = (WEB / name).read_text("utf-8")
        pattern = r"^(export )?(?:async )?(?:function|const|let) (\w+)"
        for exported, what in re.findall(pattern, text, re.MULTILINE):
            assert what not in defined, f"{what} is in {name} and in {defined[what][0]}"
            defined[what] = name, bool(exported)
    assert set(sources) == {p.name for p in WEB.iterdir() if p.name.endswith(".js")}
    for name, text in sources.items():
        for names, source in re.findall(r'^import \{([^}]*)\} from "\./(\w+\.js)"', text, re.M):
            for what in filter(None, map(str.strip, names.split(","))):
                assert defined[what] == (source, True), f"{name} imports {what} from {source}"
    assert "import " not in page.joined_scripts().replace("important", "")
