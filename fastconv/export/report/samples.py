"""What the page says of samples: name, label, prediction, and the whole picture, reduced."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from fastconv.export.report.budget import NAMED_SAMPLES, THUMBNAIL_BYTES
from fastconv.export.report.chunks import PER_CHUNK, Chunks
from fastconv.export.report.pictures import webp
from fastconv.store.reader import Run

_SIDE = 128


def samples(
    run: Run, names: list[str], hits: list[np.ndarray], also: np.ndarray, chunks: Chunks
) -> dict[str, Any]:
    """Add what is known of the samples that the page names.

    Args:
        names: of the classes.
        hits: samples [C, k] of the hits of every layer; negative where there is none.
        also: further samples [n], of maps and of the embedding.
    """
    table = run.samples
    ranked = _by_rank(hits)
    wanted = np.unique(np.concatenate([ranked[:NAMED_SAMPLES], also]).astype(np.int64))
    if table is not None:
        wanted = wanted[(wanted >= 0) & (wanted < table.count)]
    labels = labels_of(run)
    facts = {} if labels is None else {"label": labels}
    facts |= {n: run.outcomes[n] for n in ("prediction", "confidence", "correct") if run.outcomes}
    facts = {name: values[wanted] for name, values in facts.items()}
    sets = None
    if labels is not None and labels.ndim == 2:
        facts, sets = _as_sets(facts, names)
    arrays: dict[str, np.ndarray] = {"sample": wanted, **facts}
    pictures, numbers = _thumbnails(run, [*ranked.tolist(), *also.tolist()], chunks)
    arrays["picture"] = np.array([pictures.get(int(s), -1) for s in wanted], np.int32)
    keys = None if table is None or table.keys is None else table.keys
    return {
        "count": None if table is None else table.count,
        "skipped": 0 if table is None else len(table.skipped),
        "table": chunks.arrays(arrays),
        "keys": None if keys is None else chunks.text([keys[int(s)] for s in wanted]),
        "pictures": numbers,
        "labelled": labels is not None,
        "sets": sets,
    }


def labels_of(run: Run) -> np.ndarray | None:
    """Labels [N], or [N, K] of a multi-label model, of the outcomes or of the data set."""
    known, table = run.outcomes, run.samples
    found = known.get("label", None if table is None else table.labels)
    return None if found is None else np.asarray(found)


def members(labels: np.ndarray, number: int) -> np.ndarray:
    """[N] bool: the samples of a class."""
    return labels == number if labels.ndim == 1 else labels[:, number] == 1


def _as_sets(
    facts: dict[str, np.ndarray], names: list[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels and predictions [n, K] as numbers [n] of sets of classes, and what each is called.

    A sample is right where it is in every class whose label is known.
    """
    kinds = [name for name in ("label", "prediction") if name in facts]
    rows = np.concatenate([facts[kind] for kind in kinds])
    sets, codes = np.unique(rows == 1, axis=0, return_inverse=True)
    codes = np.where((rows < 0).all(1), -1, codes.reshape(-1))  # skipped, or without a label
    found: dict[str, Any] = dict(zip(kinds, np.split(codes, len(kinds)), strict=True))
    if "correct" in facts:
        found["correct"] = ((facts["correct"] == 1) | (facts["label"] < 0)).all(1)
    titles = [f"class {name}" if name.isdigit() else name for name in names]
    return found, [", ".join(titles[k] for k in np.flatnonzero(one)) or "no class" for one in sets]


def _by_rank(hits: list[np.ndarray]) -> np.ndarray:
    """Distinct samples: those of strongest hits first."""
    depth = max((found.shape[1] for found in hits), default=0)
    ranked = [found[:, rank] for rank in range(depth) for found in hits if rank < found.shape[1]]
    if not ranked:
        return np.zeros(0, np.int64)
    flat = np.concatenate(ranked)
    distinct, first = np.unique(flat, return_index=True)
    order = distinct[np.argsort(first, kind="stable")]
    return order[order >= 0]


def _thumbnails(run: Run, wanted: list[int], chunks: Chunks) -> tuple[dict[int, int], list[int]]:
    """The number of each sample's picture, and the chunks that hold `PER_CHUNK` pictures each."""
    files: list[bytes] = []
    numbers: dict[int, int] = {}
    size = 0
    for sample in dict.fromkeys(wanted):
        if size > THUMBNAIL_BYTES:
            break
        pixels = run.thumbnail(sample)
        if pixels is None:
            continue
        picture = Image.fromarray(pixels)
        picture.thumbnail((_SIDE, _SIDE))
        files.append(webp(np.asarray(picture), exact=max(picture.size) <= 32))
        numbers[sample] = len(files) - 1
        size += len(files[-1])
    starts = range(0, len(files), PER_CHUNK)
    return numbers, [chunks.pictures(files[i : i + PER_CHUNK]) for i in starts]
