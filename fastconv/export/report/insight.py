"""The only door to `fastconv.insight`: its tables as arrays, or why there are none."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastconv.errors import FastconvError
from fastconv.export.report.budget import INSIGHT_VALUES
from fastconv.store.reader import Run

TABLES = ("kernels", "redundancy", "responses", "classes", "outcomes", "misfires")
FROM_STATISTICS = ("kernels", "responses")  # they do not read every sample
_KEYS = ("layer", "filter", "class", "condition")
_PANDAS = "pip install 'fastconv[insight]'"


@dataclass
class Insight:
    """What could be learned of a run beyond its file."""

    tables: dict[str, Any] = field(default_factory=dict)  # DataFrames by name
    missing: dict[str, str] = field(default_factory=dict)  # by table: why, and what would do

    def columns(self, layer: str, filters: int) -> dict[str, np.ndarray]:
        """One value a filter [C], of every table with one row a filter; text stays text."""
        found: dict[str, np.ndarray] = {}
        for table in ("kernels", "redundancy", "outcomes"):
            rows = self.rows(table, layer)
            if rows is not None and "class" in rows:  # of a multi-label model: its clearest errors
                rows = rows.sort_values("q", kind="stable").drop_duplicates("filter")
                rows = rows.rename(columns={"class": "error_class"})
            for name in [] if rows is None else rows.columns.difference(_KEYS, sort=False):
                label = f"{table}_{name}" if name == "q" else name
                found[label] = _spread(rows["filter"], rows[name], filters)
        return found

    def rows(self, table: str, layer: str) -> Any:
        """The rows of one layer; None where there are none."""
        return rows_of(self.tables.get(table), layer)

    def grid(
        self, table: str, layer: str, key: str, keys: list[str], filters: int
    ) -> dict[str, np.ndarray]:
        """Every number column as [C, len(keys)]; NaN where the table has no row."""
        rows = self.rows(table, layer)
        if rows is None:
            return {}
        number = {name: i for i, name in enumerate(keys)}
        rows = rows[rows[key].astype(str).isin(keys)]
        at = rows["filter"].to_numpy(), rows[key].astype(str).map(number).to_numpy(int)
        found = {}
        for name in rows.columns.difference(_KEYS, sort=False):
            values = np.full((filters, len(keys)), np.nan, np.float32)
            values[at] = rows[name].to_numpy(np.float32)
            found[name] = values
        return found

    def keys(self, table: str, key: str) -> list[str]:
        """The conditions or classes of a table, in its order."""
        frame = self.tables.get(table)
        return [] if frame is None else [str(name) for name in frame[key].unique()]


def rows_of(frame: Any, layer: str) -> Any:
    """The rows of one layer; None where there are none, or no table."""
    if frame is None:
        return None
    rows = frame[frame["layer"] == layer]
    return rows if len(rows) else None


def gather(run: Run) -> Insight:
    """Ask for every table; what a run lacks is told in words."""
    insight = Insight()
    samples = 1 if run.samples is None else run.samples.count
    values = samples * sum(run[name].info.channels for name in run.layers)
    for name in TABLES:
        if values > INSIGHT_VALUES and name not in FROM_STATISTICS:
            insight.missing[name] = f"a large run: call fastconv.insight.{name}(run) for it"
            continue
        made, why = ask(name, run)
        if made is None:
            insight.missing[name] = why
        else:
            insight.tables[name] = made
    return insight


def ask(name: str, *arguments: Any, **options: Any) -> tuple[Any, str]:
    """Call a function of `fastconv.insight`: its result, or None and the reason."""
    try:
        function: Callable | None = getattr(importlib.import_module("fastconv.insight"), name, None)
    except ImportError as error:
        return None, f"{error.name or 'a package'} is not installed: {_PANDAS}"
    if function is None:
        return None, f"this version has no fastconv.insight.{name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the result says the same
            return function(*arguments, **options), ""
    except ImportError as error:
        return None, f"{error.name or 'a package'} is not installed: {_PANDAS}"
    except FastconvError as error:
        return None, " ".join(str(error).split())


def embedding(run: Run, layers: list[str]) -> tuple[Any, str]:
    """The samples in the plane by the last of these layers: points, trustworthiness, parameters.

    One that was kept beside the run comes before one that is made here.
    """
    kept, _ = ask("has_embeddings", run)
    for layer in reversed(layers if kept else ()):
        for method in ("umap", "tsne", "pca"):
            made, _ = ask("load_embedding", run, layer, method)
            if made is not None:
                return made, ""
    return ask("embed", run, layers[-1], method="pca")


def _spread(filters: Any, values: Any, count: int) -> np.ndarray:
    """Values of some filters as [count]."""
    at, values = filters.to_numpy(), values.to_numpy()
    if values.dtype.kind in "OUST" or values.dtype == object:
        spread: np.ndarray = np.full(count, "", dtype=object)
        spread[at] = ["" if value is None else str(value) for value in values]
        return spread
    numbers = np.full(count, np.nan)
    numbers[at] = values.astype(np.float64)
    return numbers
