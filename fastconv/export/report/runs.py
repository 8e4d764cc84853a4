"""One run: its entry in the index of the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.export.report.budget import Budget
from fastconv.export.report.chunks import Chunks
from fastconv.export.report.classes import class_names, classes
from fastconv.export.report.embedding import embedding
from fastconv.export.report.insight import Insight, gather
from fastconv.export.report.layers import entry
from fastconv.export.report.samples import labels_of, members, samples
from fastconv.format.result import HIT_SETS
from fastconv.run.progress import counted
from fastconv.store.reader import Run

_MISFIRES = 500
_FALSE_DISCOVERIES = 0.05  # the share of misfires that may be chance
# what a run may lack: (what it holds, what the page calls it, the call that keeps it)
_KEPT = (
    ("stats", "statistics", "stats=True"),
    ("histogram", "distributions and quantiles", "quantiles=True"),
    ("topk", "strongest hits", "topk=9"),
    ("bottomk", "weakest hits", 'order="both"'),
    ("patches", "patches", "patches=True"),
    ("samples", "responses of each sample", "samples=True"),
    ("activations", "activation maps", "maps=range(16)"),
)


def run_entry(
    run: Run,
    chunks: Chunks,
    budget: Budget,
    extra: dict[str, dict[str, np.ndarray]],
    *,
    progress: bool,
) -> dict[str, Any]:
    """Add a run.

    Args:
        extra: further columns [C] by layer.
        progress: whether to show it.
    """
    insight = gather(run)
    labels = labels_of(run)
    names = class_names(run, labels, insight)
    layers = [
        entry(run[name], chunks, budget, insight, names, extra.get(name, {}), len(run.layers))
        for name in counted(run.layers, "layers", enabled=progress)
    ]
    hits, weakest = ([_hit_samples(run, n, which) for n in run.layers] for which in HIT_SETS)
    scatter, shown, why = embedding(run, chunks)
    found = classes(names, labels, run.layers, hits, insight, chunks)
    mapped = [np.array(found_["maps"]["samples"]) for found_ in layers if found_.get("maps")]
    also = [np.asarray(s, np.int64) for s in (shown, *mapped, _class_samples(labels, names))]
    missing = insight.missing | ({} if scatter else {"embedding": why})
    named = [h[:, : budget.ranks] for h in (*hits, *weakest)]
    table = samples(run, names, named, np.concatenate(also), chunks)
    return {
        "file": file_name(run),
        "facts": _facts(run, table["count"]),
        "input_size": run.config.get("input_size"),
        "order": run.order,
        "layers": layers,
        "samples": table,
        "classes": found,
        "conditions": insight.keys("responses", "condition"),
        "misfires": _misfires(insight, run.layers, chunks),
        "embedding": scatter,
        "missing": missing,
        "lacks": _lacks(run, has_pictures=bool(table["pictures"])),
    }


def file_name(run: Run) -> str:
    """What the page calls a run: the last part of its path or address."""
    return str(run.path).replace("\\", "/").rstrip("/").split("/")[-1]


def _hit_samples(run: Run, name: str, which: str) -> np.ndarray:
    """[C, k] samples of the hits of a layer in one order."""
    layer = run[name]
    if which not in layer.holds:
        return np.zeros((layer.info.channels, 0), np.int64)
    return getattr(layer, which).sample


def _class_samples(labels: np.ndarray | None, names: list[str]) -> np.ndarray:
    """Some samples of each class, so that their names and pictures are known."""
    if labels is None:
        return np.zeros(0, np.int64)
    few = [np.flatnonzero(members(labels, n))[:24] for n in range(min(len(names), 200))]
    return np.concatenate([np.zeros(0, np.int64), *few])


def _facts(run: Run, count: int | None) -> list[list[str]]:
    """What made the run, as pairs of words."""
    config, made_by = run.config, run.config.get("made_by", {})
    filters = sum(run[name].info.channels for name in run.layers)
    stages = sorted({run[name].info.stage for name in run.layers})
    facts: list[list[Any]] = [["model", config.get("model")], ["layers", f"{len(run.layers):,}"]]
    facts += [["filters", f"{filters:,}"], ["stage", ", ".join(stages)]]
    facts += [["samples", None if count is None else f"{count:,}"]]
    known = run.outcomes
    if known and (labelled := known["label"] >= 0).any():
        facts.append(["accuracy", f"{np.mean(known['correct'][labelled] == 1):.1%}"])
    size = config.get("input_size")
    facts.append(["input", None if not size else " x ".join(map(str, size))])
    facts += [[key, made_by.get(key)] for key in ("fastconv", "torch")]
    facts.append(["finished", run.attributes.get("end_time")])
    return [[key, str(value)] for key, value in facts if value is not None]


def _misfires(insight: Insight, layers: list[str], chunks: Chunks) -> int | None:
    """Add the filters that fire on wrong outcomes, worst first."""
    frame = insight.tables.get("misfires")
    if frame is None:
        return None
    number = {name: i for i, name in enumerate(layers)}
    frame = frame[(frame["q"] <= _FALSE_DISCOVERIES) & (frame["lift"] > 1)]
    rows = [
        {
            "layer": number[row["layer"]],
            "filter": int(row["filter"]),
            "class": str(row.get("class", "")) + " (missed)" * (row.get("outcome") == "FN"),
            **{key: _number(row[key]) for key in ("rate", "lift", "q") if key in row},
        }
        for row in frame.head(_MISFIRES).to_dict("records")
        if row["layer"] in number
    ]
    return chunks.text(rows)


def _number(value: Any) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _lacks(run: Run, *, has_pictures: bool) -> list[list[str]]:
    """What no layer holds, and the call that keeps it."""
    held = {what for name in run.layers for what in run[name].holds}
    held |= {"bottomk"} if run.order == "smallest" else set()
    lacks = [(name, call) for what, name, call in _KEPT if what not in held]
    if not has_pictures:
        lacks.append(("whole pictures", "thumbnails=True"))
    return [[name, f"fastconv.extract(..., {call})"] for name, call in lacks]
