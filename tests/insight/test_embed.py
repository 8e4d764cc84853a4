"""Embeddings: exact PCA, what is trusted, what is kept."""

import errno
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.planted import noise
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from torch import nn, tensor

import fastconv
from fastconv.errors import FileFormatError, InputError, OutputError
from fastconv.export.report import insight


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two layers over 180 digits."""
    import torch

    torch.manual_seed(0)
    images = tensor(load_digits().images[:180, None] / 16).float()
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 24, 3), nn.ReLU())
    path = tmp_path_factory.mktemp("embed") / "run.h5"
    with fastconv.extract(model, images, path, samples=True, stage="act", progress=False) as run:
        yield run


def quiet(run, layer, method="pca", seed=0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return fastconv.insight.embed(run, layer, method, seed)


def test_pca_is_that_of_scikit_learn(run):
    points, trust, parameters = quiet(run, "2")
    responses = run["2"].samples.mean.astype(float)
    reference = PCA(2, svd_solver="full").fit(responses)
    wanted = reference.transform(responses)
    signs = np.sign((points * wanted).sum(0))
    np.testing.assert_allclose(points, wanted * signs, atol=1e-9)
    np.testing.assert_allclose(parameters["explained"], reference.explained_variance_ratio_)
    assert trust == pytest.approx(trustworthiness(responses, points, n_neighbors=5), abs=1e-9)
    assert (parameters["layer"], parameters["method"], parameters["seed"]) == ("2", "pca", 0)
    np.testing.assert_array_equal(points, quiet(run, "2", seed=7).points)


@pytest.mark.parametrize(
    "method",
    ["tsne", pytest.param("umap", marks=pytest.mark.slow)],  # umap compiles itself
)
def test_neighbour_maps_depend_on_their_seed_alone_and_keep_neighbours(run, method):
    pytest.importorskip({"tsne": "openTSNE", "umap": "umap"}[method])
    threads = torch.get_num_threads()
    points, trust, parameters = quiet(run, "2", method)
    assert points.shape == (180, 2) and np.isfinite(points).all()
    assert trust > quiet(run, "2").trustworthiness - 0.02
    assert parameters["version"]
    np.testing.assert_array_equal(points, quiet(run, "2", method).points)
    assert torch.get_num_threads() == threads


def test_a_map_that_misleads_is_warned_of_in_words(tmp_path):
    weights = nn.Sequential(nn.Conv2d(24, 24, 1, bias=False))
    nn.init.eye_(weights[0].weight.data.view(24, 24))
    data = noise(150, 24, 2, 2)
    run = fastconv.extract(weights, data, tmp_path / "r.h5", samples=True, progress=False)
    with run, pytest.warns(UserWarning, match="clusters may be artefacts"):
        found = fastconv.insight.embed(run, "0")
    assert found.trustworthiness < 0.9
    assert f"{found.trustworthiness:.2f}" in found.parameters["warning"]


def test_skipped_samples_have_no_point(tmp_path):
    class Broken:
        def __len__(self):
            return 20

        def __getitem__(self, index):
            if index == 4:
                raise OSError("unreadable")
            return noise(1, 1, 6, 6, seed=index)[0]

    options = {"samples": True, "progress": False, "on_error": "skip"}
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    with fastconv.extract(model, Broken(), tmp_path / "r.h5", **options) as run:
        points = quiet(run, "0").points
    assert np.flatnonzero(np.isnan(points).any(1)).tolist() == [4]


def test_embeddings_are_kept_beside_the_run_which_does_not_change(run):
    before = run.path.read_bytes()
    with pytest.raises(InputError, match="save_embedding"):
        fastconv.insight.load_embedding(run, "0")
    for layer in ("0", "2"):
        path = fastconv.insight.save_embedding(run, quiet(run, layer))
    assert path.name == "run.embeddings.h5" and run.path.read_bytes() == before
    for layer in ("0", "2"):
        found, wanted = fastconv.insight.load_embedding(run, layer), quiet(run, layer)
        np.testing.assert_array_equal(found.points, wanted.points)
        assert found[1:] == wanted[1:]
    fastconv.insight.save_embedding(run, quiet(run, "0", seed=3))
    assert fastconv.insight.load_embedding(run, "0").parameters["seed"] == 3
    with pytest.raises(InputError, match="has no tsne of 0"):
        fastconv.insight.load_embedding(run, "0", "tsne")
    path.write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="damaged"):
        fastconv.insight.load_embedding(run, "0")
    path.unlink()


def test_a_report_shows_the_embedding_that_was_kept(run):
    made, _ = insight.embedding(run, run.layers)
    assert made.parameters["layer"] == "2"  # of the last layer, where none was
    path = fastconv.insight.save_embedding(run, quiet(run, "0", seed=3))
    kept, _ = insight.embedding(run, run.layers)
    assert (kept.parameters["layer"], kept.parameters["seed"]) == ("0", 3)
    path.unlink()


def test_a_disk_that_fails_leaves_nothing_beside_the_run(run, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "no room")

    before, made = sorted(run.path.parent.iterdir()), quiet(run, "0")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="no room"):
        fastconv.insight.save_embedding(run, made)
    assert sorted(run.path.parent.iterdir()) == before


def test_what_cannot_be_embedded_says_so(run, tmp_path):
    with pytest.raises(InputError, match="method must be one of pca, tsne, umap"):
        fastconv.insight.embed(run, "0", "mds")
    with pytest.raises(InputError, match="did you mean"):
        fastconv.insight.embed(run, "02")
    few = fastconv.extract(
        nn.Sequential(nn.Conv2d(1, 4, 3)), noise(5, 1, 6, 6), tmp_path / "r.h5",
        samples=True, progress=False,
    )  # fmt: skip
    with few, pytest.raises(InputError, match="12 samples and 2 filters"):
        fastconv.insight.embed(few, "0")
    none = fastconv.extract(
        nn.Sequential(nn.Conv2d(1, 4, 3)), noise(20, 1, 6, 6), tmp_path / "n.h5", progress=False
    )
    with none, pytest.raises(InputError, match="samples=True"):
        fastconv.insight.embed(none, "0")
