"""Samples as points of a plane, near each other where a layer responds to them alike."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.manifold import trustworthiness
from threadpoolctl import threadpool_limits

from fastconv.errors import InputError
from fastconv.insight.correlation import complete_rows, ever_finite
from fastconv.insight.extras import library

if TYPE_CHECKING:
    from fastconv.store.reader import Run

METHODS = ("pca", "tsne", "umap")
TRUSTED = 0.9  # trustworthiness below which a map misleads
_JUDGED = 4000  # samples whose neighbourhoods are judged: that takes their number squared


class Embedding(NamedTuple):
    """Samples as points, and how far their neighbourhoods can be believed."""

    points: np.ndarray  # [N, 2] float64; NaN for samples that were skipped
    trustworthiness: float  # in [0, 1]: 1 where the neighbours of every point are true ones
    parameters: dict[str, Any]  # method, layer, seed, versions, what the method was given, warning


def embed(run: Run, layer: str, method: str = "pca", seed: int = 0) -> Embedding:
    """Map every sample to two dimensions by the mean responses of all filters of a layer.

    Args:
        run: made with `samples=True`.
        layer: name of a layer of 2 filters or more.
        method: "pca" (linear, exact, the same each time), "tsne" (openTSNE) or "umap"
            (umap-learn); the last two are the extra `[embed]`.
        seed: of "tsne" and "umap".

    Returns:
        Points [N, 2], trustworthiness over 5 neighbours (of 4,000 evenly spaced samples where there
        are more) and the parameters. Where trustworthiness is below 0.9, `parameters["warning"]`
        says so in words (else it is empty), and a `UserWarning` does. `save_embedding` keeps all
        of it in a file.

    Raises:
        InputError: no samples kept, fewer than 12, one filter, an unknown method or a missing
            package.

    Source: Venna and Kaski, Neighborhood preservation in nonlinear projection methods, ICANN 2001
        (trustworthiness).
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    found = run[layer].samples.mean
    if found is None:
        raise InputError(f"the run kept no means of {layer}; extract it with samples=True")
    found = found[:, ever_finite(found)]
    kept = complete_rows(found)
    responses = found[kept].astype(np.float64)
    if len(responses) < 12 or responses.shape[1] < 2:
        raise InputError(
            f"an embedding needs 12 samples and 2 filters of finite values at least; {layer} has "
            f"{len(responses)} and {responses.shape[1]}"
        )
    with threadpool_limits():  # umap's compiler sets the threads of the whole process, torch's too
        points, parameters = _METHODS[method](responses, seed)
    trust = _trustworthiness(responses, points)
    warning = ""
    if trust < TRUSTED:
        warning = (
            f"the {method} map of {layer} has a trustworthiness of {trust:.2f}: many points are "
            f"neighbours in it that {layer} does not respond to alike, so clusters may be artefacts"
        )
        warnings.warn(warning, stacklevel=2)
    spread = np.full((len(found), 2), np.nan)
    spread[kept] = points
    what = {"method": method, "layer": layer, "seed": seed, "summary": "mean", "warning": warning}
    return Embedding(spread, trust, what | parameters)


def _pca(responses: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Exact principal components by singular values; the largest entry of an axis is positive."""
    del seed
    centred = responses - responses.mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    share = values[:2] ** 2 / max((values**2).sum(), np.finfo(float).tiny)
    return centred @ (axes[:2] * signs[:2, None]).T, {"explained": share.tolist()}


def _tsne(responses: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    package = library("openTSNE", "embed")
    perplexity = min(30.0, (len(responses) - 1) / 3)
    made = package.TSNE(perplexity=perplexity, random_state=seed, n_jobs=1).fit(responses)
    given = {"perplexity": perplexity, "initialization": "pca", "version": package.__version__}
    return np.asarray(made, np.float64), given


def _umap(responses: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    package = library("umap", "embed")
    given = {"n_neighbors": min(15, len(responses) - 1), "min_dist": 0.1}
    made = package.UMAP(random_state=seed, n_jobs=1, **given).fit_transform(responses)
    return np.asarray(made, np.float64), given | {"version": package.__version__}


_METHODS = {"pca": _pca, "tsne": _tsne, "umap": _umap}


def _trustworthiness(responses: np.ndarray, points: np.ndarray) -> float:
    rows = np.unique(np.linspace(0, len(points) - 1, min(len(points), _JUDGED)).round().astype(int))
    return float(trustworthiness(responses[rows], points[rows], n_neighbors=5))
