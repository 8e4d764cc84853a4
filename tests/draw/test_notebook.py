"""Notebooks: a run, a layer and a filter as small, safe HTML."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import synthetic

import fastconv
from fastconv.draw.notebook import filter_html, layer_html, run_html
from fastconv.errors import InputError
from fastconv.store.writer import write_run

TAGS = {"p", "b", "br", "img", "div", "table", "tr", "th", "td"}
HOSTILE = '<script>alert(1)</script>"&'


class Reader(HTMLParser):
    """Tags and text of a page; every tag must be closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], set(), ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in ("img", "br"):
            self.open.append(tag)
        assert {name for name, _ in attributes} <= {"src", "alt"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    infos = [synthetic.layer_info("conv1", 5), synthetic.layer_info(HOSTILE, 4, rank=1, size=33)]
    infos.append(synthetic.layer_info("c3", 2, rank=3, size=4))
    results = [synthetic.layer_result(info)[0] for info in infos]
    bare = synthetic.layer_result(synthetic.layer_info("bare", 3))[0]
    bare.stats, bare.histogram, bare.topk, bare.patches, bare.weight = {}, None, {}, None, None
    path = tmp_path_factory.mktemp("run") / "run.h5"
    write_run(path, synthetic.CONFIG, iter([*results, bare]), samples=synthetic.sample_table())
    return path


def test_a_run_is_a_table_of_its_layers(file):
    with fastconv.open(file) as run:
        html = run_html(run)
    page = Reader(html)
    assert page.tags <= {"div", "p", "b", "table", "tr", "th", "td"}
    assert HOSTILE in page.text and "11 samples" in page.text and "4 layers" in page.text
    assert html.count("<tr>") == 5


def test_a_layer_and_a_filter_show_their_pictures(file):
    with fastconv.open(file) as run:
        for name in run.layers:
            for html in (layer_html(run[name]), filter_html(run[name], 1)):
                page = Reader(html)
                assert name in page.text and page.tags <= TAGS
                assert html.count("data:image/png") == {"conv1": 2, "bare": 0}.get(name, 1)
                assert len(html) < 100_000


def test_objects_show_themselves(file):
    with fastconv.open(file) as run:
        layer = run["conv1"]
        shown = [run._repr_html_(), layer._repr_html_(), layer[3]._repr_html_()]
        assert shown == [run_html(run), layer_html(layer), filter_html(layer, 3)]
        assert len(layer) == 5 and [one.index for one in layer] == [0, 1, 2, 3, 4]
        assert layer[3].stats["max"] == layer.stats["max"][3]
        np.testing.assert_array_equal(layer[3].weight, layer.weight[3])
        np.testing.assert_array_equal(layer[3].patches[1], layer.patch(3, 1))
        assert layer[3].quantile([0.5]) == layer.quantile([0.5])[3]
        with pytest.raises(InputError, match="conv1 has filters 0 to 4, got 5"):
            layer[5]
    run = fastconv.open(file)
    run.close()
    assert run._repr_html_() is None or "conv1" in run._repr_html_()  # no error


def test_long_runs_are_cut(file):
    with fastconv.open(file) as run:
        layer = run["conv1"]
        names = [f"conv{i}" for i in range(50)]
        many = {"path": "run.h5", "samples": None, "layers": names}
        html = run_html(type("Many", (SimpleNamespace,), {"__getitem__": lambda *_: layer})(**many))
    assert html.count("<tr>") == 41 and "and 10 more" in html
    assert not re.search("samples", html)
