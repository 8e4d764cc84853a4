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


def samples(run: Run, hits: list[np.ndarray], also: np.ndarray, chunks: Chunks) -> dict[str, Any]:
    """Add what is known of the samples that the page names.

    Args:
        hits: samples [C, k] of the hits of every layer; negative where there is none.
        also: further samples [n], of maps and of the embedding.
    """
    table = run.samples
    ranked = _by_rank(hits)
    wanted = np.unique(np.concatenate([ranked[:NAMED_SAMPLES], also]).astype(np.int64))
    if table is not None:
        wanted = wanted[(wanted >= 0) & (wanted < table.count)]
    arrays: dict[str, np.ndarray] = {"sample": wanted}
    known = run.outcomes
    labels = known.get("label", None if table is None else table.labels)
    if labels is not None:
        arrays["label"] = np.asarray(labels)[wanted]
    for name in ("prediction", "confidence", "correct"):
        if name in known:
            arrays[name] = known[name][wanted]
    pictures, numbers = _thumbnails(run, ranked, chunks)
    arrays["picture"] = np.array([pictures.get(int(s), -1) for s in wanted], np.int32)
    keys = None if table is None or table.keys is None else table.keys
    return {
        "count": None if table is None else table.count,
        "skipped": 0 if table is None else len(table.skipped),
        "table": chunks.arrays(arrays),
        "keys": None if keys is None else chunks.text([keys[int(s)] for s in wanted]),
        "pictures": numbers,
        "labelled": labels is not None,
    }


def labels_of(run: Run) -> np.ndarray | None:
    """[N] labels, of the outcomes or of the data set."""
    known, table = run.outcomes, run.samples
    found = known.get("label", None if table is None else table.labels)
    return None if found is None else np.asarray(found)


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


def _thumbnails(run: Run, wanted: np.ndarray, chunks: Chunks) -> tuple[dict[int, int], list[int]]:
    """The number of each sample's picture, and the chunks that hold `PER_CHUNK` pictures each."""
    files: list[bytes] = []
    numbers: dict[int, int] = {}
    size = 0
    for sample in wanted:
        if size > THUMBNAIL_BYTES:
            break
        pixels = run.thumbnail(int(sample))
        if pixels is None:
            if not files:
                break  # none was kept
            continue
        picture = Image.fromarray(pixels)
        picture.thumbnail((_SIDE, _SIDE))
        files.append(webp(np.asarray(picture), exact=max(picture.size) <= 32))
        numbers[int(sample)] = len(files) - 1
        size += len(files[-1])
    starts = range(0, len(files), PER_CHUNK)
    return numbers, [chunks.pictures(files[i : i + PER_CHUNK]) for i in starts]
