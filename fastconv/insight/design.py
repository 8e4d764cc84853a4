"""What the kernels of a layer say about its size, stride and number of filters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fastconv.errors import InputError
from fastconv.insight import spectra
from fastconv.insight.correlation import finite_weights, response_correlation
from fastconv.insight.redundancy import weight_similarity

if TYPE_CHECKING:
    from fastconv.format.result import LayerInfo
    from fastconv.store.read_layer import Layer
    from fastconv.store.reader import Run

RIM = 0.01  # share of the energy that a rim may hold and still be unused
ALIASING = 0.25  # share of the energy above the Nyquist limit that is worth a blur
SAME_WEIGHTS, SAME_RESPONSES = 0.95, 0.99  # from which two filters are one


def design(run: Run) -> pd.DataFrame:
    """Say of every layer what a designer could change, each with the figure it rests on.

    Args:
        run: any run of convolutions; with `samples=True` redundant filters are found by their
            responses too, not by their weights alone.

    Returns:
        One row a layer that has spatial kernels; filters of weights that are not finite have no
        part in the energies:

        - layer, kernel, stride: as text, "3x3".
        - unused_rim: how many outermost taps, on every side, hold at most 1 % of the energy of
          the layer's weights together.
        - rim_energy: share of that energy in the outermost taps alone (0 where the kernel has
          fewer than three).
        - next_stride: by how much the output is thinned out before the next layer reads it: the
          stride of the layer itself times that of a pooling behind it (average or maximum: the
          file does not know); 1 for none.
        - above_nyquist: share of the energy of the kernels above 1 / (2 next_stride) cycles per
          position, which folds back as aliasing if the input has a flat spectrum (an upper bound
          for smooth inputs); 0 without thinning.
        - filters: their number. redundant: filters that an earlier one of the layer already is.
          dead: filters that are never above 0.
        - advice: what to try, with the figures; empty where there is nothing.

    Raises:
        InputError: no layer has spatial kernels, or the run kept no statistics.

    Source: Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019 (blur before the
        stride).
    """
    infos = [run[name].info for name in run.layers if run[name].info.kernel is not None]
    edges = run.graph or [(a.name, b.name) for a, b in pairwise(infos)]  # older files have none
    readers: dict[str, list[LayerInfo]] = {info.name: [] for info in infos}
    for source, target in edges:
        if source in readers and target in readers:
            readers[source].append(run[target].info)
    found = (_row(run[name], following) for name, following in readers.items())
    rows = [row for row in found if row is not None]
    if not rows:
        raise InputError(f"no layer of {run.path} has spatial kernels; extract convolutions")
    return pd.DataFrame(rows)


def _row(layer: Layer, readers: Sequence[LayerInfo]) -> dict[str, Any] | None:
    info, weight = layer.info, layer.weight
    if weight is None or weight.ndim < 3 or info.kernel is None or info.stride is None:
        return None
    finite = weight[finite_weights(weight)]
    thinned = thinning(info, readers)
    above = 0.0
    if max(thinned) > 1 and len(finite):
        energy = np.square(finite, dtype=np.float64).reshape(len(finite), -1).sum(1)
        shares = spectra.energy_above(finite, thinned, info.dilation or (1,) * len(thinned))
        above = float((shares * energy).sum() / energy.sum()) if energy.any() else 0.0
    rims = rim_energies(finite)
    row = {
        "layer": info.name,
        "kernel": "x".join(map(str, info.kernel)),
        "stride": "x".join(map(str, info.stride)),
        "unused_rim": _unused(rims),
        "rim_energy": rims[0] if rims else 0.0,
        "next_stride": max(thinned),
        "above_nyquist": above,
        "filters": len(weight),
        "redundant": int(_redundant(layer, weight).sum()),
        "dead": int(layer.stats["dead"].sum()),
    }
    return row | {"advice": "; ".join(_advice(row, info.kernel, rims))}


def thinning(info: LayerInfo, readers: Sequence[LayerInfo]) -> tuple[float, ...]:
    """How much of a layer's dense output is dropped, per dimension, before the next ones read it.

    The distance of its own outputs, and of those that the layers behind it read, both in input
    pixels, follow from the receptive fields; what lies between is pooling, the most of them.
    """
    assert info.stride is not None
    if info.transposed:
        return (1.0,) * len(info.stride)
    pooled = [1.0] * len(info.stride)
    for after in readers:
        if after.stride is None or after.transposed or len(after.stride) != len(pooled):
            continue
        for i, (here, there) in enumerate(zip(info.fields, after.fields, strict=False)):
            step = here.advance / here.period
            if i < len(pooled) and step > 0:
                pooled[i] = max(pooled[i], there.advance / there.period / after.stride[i] / step)
    return tuple(s * p for s, p in zip(info.stride, pooled, strict=True))


def rim_energies(weight: np.ndarray) -> list[float]:
    """Share of the layer's energy in the outermost 1, 2, ... taps on every side."""
    energy = np.square(weight, dtype=np.float64).sum((0, 1))  # [*kernel]
    total = energy.sum()
    rims = []
    # dimensions with one tap have no rim
    for rim in range(1, (min((k for k in energy.shape if k > 1), default=1) - 1) // 2 + 1):
        inner = tuple(slice(rim, -rim) if k > 1 else slice(None) for k in energy.shape)
        rims.append(float(1 - energy[inner].sum() / total) if total > 0 else 0.0)
    return rims


def _unused(rims: list[float]) -> int:
    return sum(share <= RIM for share in rims)


def _redundant(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """[C] bool: filters that are the same as one before them."""
    same = weight_similarity(weight, layer.info.groups or 1) >= SAME_WEIGHTS
    if "samples" in layer.holds:
        same |= response_correlation(layer, layer) >= SAME_RESPONSES
    return np.asarray(np.tril(same, -1).any(1))


def _advice(row: dict[str, Any], kernel: tuple[int, ...], rims: list[float]) -> list[str]:
    found = []
    if row["unused_rim"]:
        rim = row["unused_rim"]
        smaller = "x".join(str(k - 2 * rim if k > 1 else 1) for k in kernel)
        found.append(
            f"a kernel of {smaller} would do: the rim of {rim} holds {rims[rim - 1]:.1%} of the "
            "energy of the weights"
        )
    if row["above_nyquist"] > ALIASING:
        factor, share = row["next_stride"], row["above_nyquist"]
        found.append(
            f"blur before thinning out by {factor:g}: {share:.0%} of the energy lies above the "
            f"Nyquist limit of {1 / (2 * factor):.3g} cycles"
        )
    for what in ("redundant", "dead"):
        if row[what]:
            left = row["filters"] - row[what]
            found.append(f"{row[what]} of {row['filters']} filters are {what}: {left} would do")
    return found
