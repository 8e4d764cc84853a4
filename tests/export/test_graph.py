"""The network as a graph: its layers, its edges, what its colours mean, and that it can be read."""

import re
import warnings
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from export.conftest import HOSTILE

from fastconv import export
from fastconv.errors import InputError, OutputError
from fastconv.export.layering import layered

SVG = "{http://www.w3.org/2000/svg}"


def boxes(path):
    """Name, middle and fill of every layer of an SVG."""
    found = {}
    for group in ET.parse(path).getroot().iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        name = group.find(f"{SVG}title").text.splitlines()[0]
        x, y, width = (float(box.get(key)) for key in ("x", "y", "width"))
        found[name] = (x + width / 2, y, box.get("fill"))
    return found


@pytest.mark.parametrize("colour", ["positive", "dead", "mean", "std", "min", "max", "nonfinite"])
def test_every_layer_is_drawn_in_forward_order(odd_run, tmp_path, colour):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = export.graph(odd_run, tmp_path / "net.svg", colour=colour)
    found = boxes(path)
    assert len(found) == len(odd_run.layers)
    heights = [y for _, y, _ in found.values()]
    assert heights == sorted(set(heights))
    assert "the file holds no connections" in path.read_text()


def test_colours_follow_the_statistic(odd_run, tmp_path):
    found = boxes(export.graph(odd_run, tmp_path / "net.svg", colour="dead"))
    assert found["dead"][2] == found["zero"][2] == "#fde725"  # the upper end of viridis
    assert found["two"][2] == "#440154"  # the lower end
    assert found["nan"][2] == "#a0a0a8"  # no value


def test_edges_of_the_file_are_drawn(odd_run, tmp_path, monkeypatch):
    two, one, three, none = odd_run.layers[:4]
    edges = [(two, one), (one, three), (two, three), (three, "gone"), (three, two), (three, none)]
    monkeypatch.setattr(type(odd_run), "graph", edges, raising=False)
    path = export.graph(odd_run, tmp_path / "net.svg")
    assert "the file holds no connections" not in path.read_text()
    found = boxes(path)
    assert found[two][1] < found[one][1] < found[three][1] < found[none][1]
    text = export.graph(odd_run, tmp_path / "net.dot").read_text()
    assert re.findall(r"n\d+ -> n\d+", text) == [
        f"n{a} -> n{b}" for a, b in ("01", "12", "02", "23")
    ]


@pytest.mark.parametrize("suffix", ["svg", "dot"])
def test_hostile_names_are_text(odd_run, tmp_path, suffix):
    path = export.graph(odd_run, tmp_path / f"net.{suffix}")
    text = path.read_text()
    if suffix == "svg":
        assert any(name.startswith('../../<b>"$') for name in boxes(path))
        assert "<b>" not in text and "\x01" not in text
    else:
        assert '../../<b>\\"$\\\\frac{1}$&' in text
        labels = re.findall(r'\[label="((?:[^"\\]|\\.)*)", fillcolor="#[0-9a-f]{6}"', text)
        assert len(labels) == len(odd_run.layers)
        assert HOSTILE[-300:] in labels[-1]


def test_a_run_without_statistics_is_drawn_all_the_same(bare_run, tmp_path):
    assert boxes(export.graph(bare_run, tmp_path / "net.svg"))["bare"][2] == "#a0a0a8"


def test_bad_input_is_told_in_one_line(bare_run, tmp_path):
    with pytest.raises(InputError, match=r"as \.svg or \.dot, got .*net\.png"):
        export.graph(bare_run, tmp_path / "net.png")
    with pytest.raises(InputError, match=r"colour must be one of dead, .* got 'red'"):
        export.graph(bare_run, tmp_path / "net.svg", colour="red")
    with pytest.raises(OutputError, match="cannot be written"):
        export.graph(bare_run, tmp_path / "gone" / "net.svg")


def test_layers_of_a_level_do_not_overlap():
    rng = np.random.default_rng(0)
    nodes = list(range(40))
    edges = [(int(rng.integers(0, b)), b) for b in nodes[1:] for _ in range(2)]
    placed = layered(nodes, list(dict.fromkeys(edges)), width=10, bend=2)
    assert all(placed.level[a] < placed.level[b] for a, b in edges)
    for level in set(placed.level.values()):
        at = sorted(placed.x[n] for n in nodes if placed.level[n] == level)
        assert all(b - a >= 10 - 1e-9 for a, b in pairwise(at))
    for route in placed.routes:
        assert [placed.level[n] for n in route] == list(
            range(placed.level[route[0]], placed.level[route[-1]] + 1)
        )


def test_a_chain_is_straight_and_nothing_is_drawn_of_nothing():
    placed = layered("abc", [("a", "b"), ("b", "c")], width=10, bend=2)
    assert len(set(placed.x.values())) == 1
    assert layered([], [], 10, 2).routes == []
