"""A run at a URL gives every table and picture that it gives on the disk."""

import warnings

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.networks import images, network
from torch.utils.data import TensorDataset

import fastconv
from fastconv.cli.main import main as cli
from fastconv.errors import InputError

TABLES = ("responses", "classes", "outcomes", "confusion", "misfires", "kernels", "design")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The run on the disk, and the same at a URL."""
    data = TensorDataset(images(14), torch.arange(14) % 3)
    options = {
        **{"samples": True, "outcomes": True, "maps": [1, 3], "order": "both", "progress": False},
        "conditions": {"flip": fastconv.perturb.flip()},
    }
    here = fastconv.extract(network(), data, tmp_path_factory.mktemp("runs") / "run.h5", **options)
    url = "memory://elsewhere/run.h5"
    there = fastconv.extract(network(), data, url, overwrite=True, **options)
    yield here, there
    here.close()
    there.close()
    fsspec.filesystem("memory").rm("/elsewhere", recursive=True)


@pytest.mark.parametrize("name", [*TABLES, "redundancy"])
def test_tables(both, name):
    here, there = (getattr(fastconv.insight, name)(run) for run in both)
    pd.testing.assert_frame_equal(here, there)


def test_an_embedding_is_kept_beside_the_run(both):
    run = both[1]
    assert not fastconv.insight.has_embeddings(run)
    with pytest.raises(InputError, match=r"no memory://elsewhere/run\.embeddings\.h5; make it"):
        fastconv.insight.load_embedding(run, run.layers[0])
    for layer in run.layers[:2]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            made = fastconv.insight.embed(run, layer)
        fastconv.insight.save_embedding(run, made)
        found = fastconv.insight.load_embedding(run, layer)
        np.testing.assert_array_equal(found.points, made.points)
    assert fastconv.insight.load_embedding(run, run.layers[0])
    assert fastconv.insight.has_embeddings(run) and not fastconv.insight.has_embeddings(both[0])
    fsspec.filesystem("memory").rm("/elsewhere/run.embeddings.h5")


def test_pictures(both, tmp_path):
    sizes = []
    for run in both:
        folder = tmp_path / str(len(sizes))
        folder.mkdir()
        pages = [
            fastconv.report(run, folder / "report.html"),
            fastconv.report(run, folder / "two.html", other=both[0]),
        ]
        figures = fastconv.export.figures(run, folder / "figures", run.layers[0])
        graph = fastconv.export.graph(run, folder / "net.svg")
        log = fastconv.export.tensorboard(run, folder / "log")
        assert run._repr_html_() and any(log.iterdir())
        sizes.append((len(figures), graph.stat().st_size, all(p.stat().st_size for p in pages)))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("verb", ["inspect", "report", "insight", "compare", "export"])
def test_command_line(both, verb, tmp_path, capsys):
    url = str(both[1].path)
    arguments = {
        "inspect": [url],
        "report": [url, "-o", str(tmp_path / "page.html")],
        "insight": ["misfires", url],
        "compare": [url, str(both[0].path)],
        "export": ["graph", url, str(tmp_path / "net.svg")],
    }
    assert cli([verb, *arguments[verb]]) == 0
    assert capsys.readouterr().out
