"""Embeddings kept beside a run, so that the finished file itself is never written again."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from fastconv.errors import FileFormatError, InputError, OutputError
from fastconv.insight.embed import METHODS, Embedding
from fastconv.store import remote, upload
from fastconv.store.schema import escape

if TYPE_CHECKING:
    from fastconv.store.reader import Run


def embeddings_path(run: Run) -> Path | str:
    """`run.embeddings.h5` for `run.h5`; a URL where the run is at one."""
    if isinstance(run.path, Path):
        return run.path.with_suffix(".embeddings.h5")
    return f"{run.path.removesuffix('.h5')}.embeddings.h5"


def has_embeddings(run: Run) -> bool:
    """Whether any embedding was kept beside a run."""
    path = embeddings_path(run)
    return path.is_file() if isinstance(path, Path) else upload.exists(path)


def save_embedding(run: Run, embedding: Embedding) -> Path | str:
    """Keep an embedding beside its run; one of the same layer and method is replaced.

    Group `<layer>/<method>` (the layer escaped as in the file format) with the dataset `points`
    [N, 2] and the attributes `trustworthiness` and `parameters` (JSON).

    Raises:
        OutputError: it cannot be written there.
    """
    path, place = embeddings_path(run), _place(embedding.parameters)
    content = io.BytesIO(_content(path) if has_embeddings(run) else b"")
    with h5py.File(content, "a") as file:
        if place in file:
            del file[place]
        group = file.create_group(place)
        group["points"] = embedding.points
        group.attrs["trustworthiness"] = embedding.trustworthiness
        group.attrs["parameters"] = np.bytes_(json.dumps(embedding.parameters).encode())
    if isinstance(path, str):
        upload.put_bytes(content.getvalue(), path)
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.getvalue())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_embedding(run: Run, layer: str, method: str = "pca") -> Embedding:
    """Read an embedding that was kept beside a run.

    Raises:
        InputError: there is none of this layer and method.
        FileFormatError: what is there is none.
    """
    path, place = embeddings_path(run), _place({"layer": layer, "method": method})
    remedy = f"make it with save_embedding(run, embed(run, {layer!r}, {method!r}))"
    if not has_embeddings(run):
        raise InputError(f"there is no {path}; {remedy}")
    try:
        with h5py.File(io.BytesIO(_content(path)), "r") as file:
            if place not in file:
                raise InputError(f"{path} has no {method} of {layer}; {remedy}")
            group = file[place]
            points = np.asarray(group["points"][()], np.float64)
            attributes = dict(group.attrs)
        parameters = json.loads(bytes(attributes["parameters"]))
        return Embedding(points, float(attributes["trustworthiness"]), parameters)
    except (OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise FileFormatError(f"{path} is damaged: {error}; delete it and {remedy}") from error


def _content(path: Path | str) -> bytes:
    if isinstance(path, Path):
        return path.read_bytes()
    file = remote.open_url(path)
    return file.read(file.size)


def _place(parameters: dict) -> str:
    method = parameters["method"]
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    return f"{escape(str(parameters['layer']))}/{method}"
