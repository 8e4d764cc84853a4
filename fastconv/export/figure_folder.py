"""`fastconv.export.figures`: a folder of figures for papers and slides."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fastconv.errors import InputError
from fastconv.export.needs import chosen_layers, make_folder, require
from fastconv.store.reader import Run

FORMATS = ("png", "svg", "pdf")


def figures(
    run: Run,
    folder: str | os.PathLike[str],
    layers: str | Iterable[str] | None = None,
    format: str = "png",
    *,
    progress: bool = True,
) -> list[Path]:
    """Draw a run with matplotlib into a folder.

    `network` compares the layers. Each layer has a folder of its own below `layers/`, named safely,
    with those of these that the file holds the data for: `kernels` (weights, on a scale about 0),
    `filters` (kernel, strongest patches and distribution side by side), `statistics` (per filter),
    `maps` (activation maps over the input), `surfaces` (maps as landscapes), `classes` (class
    selectivity) and `conditions` (responses to change).

    Args:
        run: an opened run.
        folder: made where it is missing.
        layers: names and globs; None draws all layers.
        format: "png", "svg" or "pdf".
        progress: show layers done and the time left.

    Returns:
        The files that were written.

    Raises:
        InputError: another format, or matplotlib is not installed (extra `figures`).
        UnknownLayerError: a name that fits no layer.
        OutputError: the folder cannot be written, or already holds files of this format.
    """
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    require("matplotlib", "figures")
    from fastconv.export.plots.write import write_figures

    chosen = chosen_layers(run, layers)
    folder = make_folder(folder, f"*.{format}")
    return write_figures(run, chosen, folder, format, progress=progress)
