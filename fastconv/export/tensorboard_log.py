"""`fastconv.export.tensorboard`: a run as a log that TensorBoard shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.errors import InputError, OutputError
from fastconv.export import tensorboard_pictures as pictures
from fastconv.export.needs import make_folder, require
from fastconv.export.summary import STATISTICS, layer_statistic, principal
from fastconv.run.progress import counted
from fastconv.store.reader import Layer, Run
from fastconv.store.schema import MAX_NAME, escape

_HISTOGRAMS = 16  # of single filters a layer; that of the whole layer comes on top
_POINTS = 5_000  # of an embedding; the projector is slow beyond


def tensorboard(
    run: Run,
    logdir: str | os.PathLike[str] | None = None,
    *,
    writer: Any = None,
    global_step: int = 0,
    progress: bool = True,
) -> Path:
    """Write a run as a TensorBoard log: what the file holds of each layer, and the run's options.

    Images are the kernels, the filters with their strongest patches, and activation maps.
    Histograms are those of the file, of each layer and its first 16 filters. The projector shows
    the filters of each layer by their weights, and, where the run kept `samples`, the samples by
    the mean response of its filters. Statistics per layer are scalars.

    In a training loop, give the loop's own `writer` and the epoch as `global_step`: the filters can
    then be watched as they learn. Options (`hparams`) are left to the loop in that case.

    Args:
        run: an opened run.
        logdir: a folder, made where it is missing. Not with `writer`.
        writer: a `torch.utils.tensorboard.SummaryWriter`, which stays open.
        global_step: the step of everything written.
        progress: show layers done and the time left; not with `writer`.

    Returns:
        The folder of the log.

    Raises:
        InputError: neither or both of `logdir` and `writer`; tensorboard is not installed (extra
            `tensorboard`).
        OutputError: the folder cannot be written, or already holds a log.
    """
    if (logdir is None) == (writer is None):
        raise InputError("give a folder (logdir=) or a SummaryWriter (writer=), one of the two")
    if writer is not None:
        _write(run, writer, global_step, progress=False)
        return Path(writer.log_dir)
    require("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    assert logdir is not None
    folder = make_folder(logdir, "events.out.tfevents.*")
    try:
        with SummaryWriter(str(folder)) as opened:
            _write(run, opened, global_step, progress=progress)
            _hparams(run, opened)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror})") from error
    return folder


def _write(run: Run, writer: Any, step: int, *, progress: bool) -> None:
    for name in counted(run.layers, "layers", enabled=progress):
        layer, tag = run[name], _tag(name)
        for kind, picture in pictures.images(layer):
            writer.add_image(f"{tag}/{kind}", picture, step, dataformats="HWC")
        if "stats" in layer.holds:
            for statistic in STATISTICS:
                value = layer_statistic(layer, statistic)
                if np.isfinite(value):
                    writer.add_scalar(f"{tag}/{statistic}", value, step)
        if "histogram" in layer.holds:
            _histograms(layer, tag, writer, step)
        _embeddings(run, layer, tag, writer, step)


def _tag(name: str) -> str:
    """A tag by which TensorBoard groups: the layer's name, fit to be part of a file name."""
    plain = "".join(c if c.isprintable() and c != "/" else "_" for c in name)
    return (plain if len(plain.encode()) <= MAX_NAME else escape(name)) or "(the model itself)"


def _histograms(layer: Layer, tag: str, writer: Any, step: int) -> None:
    """The stored counts of the layer and of its first filters."""
    counts, edges = layer.histogram
    stats = layer.stats
    total, known = stats["count"].sum(), stats["count"] > 0
    if not total:
        return
    mean, square = (np.nan_to_num(stats[n]) for n in ("mean", "var"))
    sums, squares = mean * stats["count"], (square + mean**2) * stats["count"]
    low, high = stats["min"][known].min(), stats["max"][known].max()
    whole = counts.sum(0), low, high, sums.sum(), squares.sum()
    _histogram(writer, f"{tag}/activation", edges, whole, step)
    for i in np.flatnonzero(known[:_HISTOGRAMS]):
        single = counts[i], stats["min"][i], stats["max"][i], sums[i], squares[i]
        _histogram(writer, f"{tag}/activation of filter {i:02d}", edges, single, step)


def _histogram(writer: Any, tag: str, edges: np.ndarray, numbers: tuple, step: int) -> None:
    counts, low, high, total, squares = numbers
    found = np.flatnonzero(counts)
    first = max(found[0] - 1, 0)  # an empty bin: TensorBoard needs the lower edge of the next one
    used = slice(first, found[-1] + 1)
    upper = np.clip(edges[1:][used], low, high)
    upper[0] = min(float(edges[1:][used][0]), float(low))
    writer.add_histogram_raw(
        tag,
        min=float(low),
        max=float(high),
        num=int(counts.sum()),
        sum=float(total),
        sum_squares=float(squares),
        bucket_limits=upper.tolist(),
        bucket_counts=counts[used].tolist(),
        global_step=step,
    )


def _embeddings(run: Run, layer: Layer, tag: str, writer: Any, step: int) -> None:
    """Filters by their weights, samples by the mean responses of the filters.

    In 64 principal components at most: the projector reads text, which would be gigabytes.
    """
    weight = layer.weight
    if weight is not None and len(weight) > 2 and np.isfinite(weight).all():
        vectors = principal(weight[:_POINTS].reshape(min(len(weight), _POINTS), -1))
        header, rows = pictures.filter_facts(layer, len(vectors))
        sprites = pictures.filter_sprites(layer, len(vectors))
        _embedding(writer, f"{tag}/filters", vectors, header, rows, sprites, step)
    means = layer.samples.mean if "samples" in layer.holds else None
    if means is None:
        return
    known = np.flatnonzero(np.isfinite(means).all(axis=1))[:_POINTS]
    if len(known) > 2:
        header, rows = pictures.sample_facts(run, known)
        sprites = pictures.sample_sprites(run, known)
        _embedding(writer, f"{tag}/samples", principal(means[known]), header, rows, sprites, step)


def _embedding(
    writer: Any,
    tag: str,
    vectors: np.ndarray,
    header: list[str],
    rows: list[list[str]],
    sprites: np.ndarray | None,
    step: int,
) -> None:
    import torch

    if vectors.shape[1] < 2:  # the projector needs two dimensions at least
        vectors = np.pad(vectors, ((0, 0), (0, 2 - vectors.shape[1])))
    images = None if sprites is None else torch.from_numpy(sprites).permute(0, 3, 1, 2) / 255
    writer.add_embedding(
        vectors, metadata=rows, metadata_header=header, label_img=images, global_step=step, tag=tag
    )


def _hparams(run: Run, writer: Any) -> None:
    """The options of the run, and what came of them: dead filters, share of positive values."""
    from torch.utils.tensorboard.summary import hparams

    made = run.config.get("fingerprint", run.config)
    plain = {k: v for k, v in made.items() if isinstance(v, (bool, int, float, str))}
    options = {k: v for k, v in plain.items() if k not in ("graph", "model")}  # hashes
    layers = [run[name] for name in run.layers if "stats" in run[name].holds]
    metrics = {"number of layers": float(len(run.layers))}
    if layers:
        metrics["dead filters"] = float(sum(layer.stats["dead"].sum() for layer in layers))
        shares = np.array([layer_statistic(layer, "positive") for layer in layers])
        if np.isfinite(shares).any():
            metrics["share of values above 0"] = float(np.nanmean(shares))
    for summary in hparams(options, metrics):
        writer.file_writer.add_summary(summary)
    for name, value in metrics.items():
        writer.add_scalar(name, value)
