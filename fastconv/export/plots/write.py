"""Writes every figure of a run into a folder."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastconv.errors import InputError, OutputError
from fastconv.export.plots.canvas import style
from fastconv.export.plots.filters import filters
from fastconv.export.plots.kernels import kernels
from fastconv.export.plots.maps import maps, surfaces
from fastconv.export.plots.statistics import filter_statistics, network_statistics
from fastconv.export.plots.tables import class_selectivity, condition_responses
from fastconv.run.progress import counted
from fastconv.store.reader import Layer, Run
from fastconv.store.schema import escape

_DATES = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # same bytes each time


def write_figures(
    run: Run, layers: list[Layer], folder: Path, format: str, *, progress: bool
) -> list[Path]:
    """Draw the layers into `folder`, as `fastconv.export.figures` says."""
    written: list[Path] = []

    def save(figure: Figure | None, *place: str) -> None:
        if figure is None:
            return
        path = folder.joinpath(*place).with_name(f"{place[-1]}.{format}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, format=format, metadata=_DATES[format])
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror})") from error
        written.append(path)

    classes, responses = _table("classes", run), _table("responses", run)
    with style():
        save(network_statistics(layers), "network")
        for layer in counted(layers, "layers", enabled=progress):
            for name, figure in _figures_of(layer, run, classes, responses):
                save(figure, "layers", escape(layer.name), name)
    return written


def _figures_of(
    layer: Layer, run: Run, classes: Any, responses: Any
) -> Iterator[tuple[str, Figure | None]]:
    yield "kernels", kernels(layer)
    yield "filters", filters(layer)
    yield "statistics", filter_statistics(layer)
    yield "maps", maps(layer, run)
    yield "surfaces", surfaces(layer, run)
    if classes is not None:
        yield "classes", class_selectivity(layer.name, classes[classes["layer"] == layer.name])
    if responses is not None:
        rows = responses[responses["layer"] == layer.name]
        yield "conditions", condition_responses(layer.name, rows)


def _table(name: str, run: Run) -> Any:
    """A table of insight; None where the file lacks what it needs, or its extra is missing."""
    try:
        return getattr(import_module("fastconv.insight"), name)(run)
    except InputError:
        return None
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fastconv"):
            raise
        return None
