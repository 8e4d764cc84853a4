"""Kernels as such: how large, how oriented, how fine, how regular, and of which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fastconv.errors import InputError
from fastconv.insight import spectra
from fastconv.insight.correlation import finite_weights

if TYPE_CHECKING:
    from fastconv.store.reader import Run

ORIENTED = 0.6  # coherence of the structure tensor from which a kernel has one direction
REGULAR = 0.6  # |symmetry| that an oriented kernel needs, to be more than noise
SYMMETRIC = 0.75  # |symmetry| that any other kernel needs
ONE_SIGNED = 0.75  # |sum| over the sum of magnitudes from which a kernel is a blur


def kernels(run: Run) -> pd.DataFrame:
    """Describe the kernel of every filter of every layer that has weights.

    Input channels are taken together: a filter of several has the summed energies and correlations
    of its spatial kernels. Formulas and sources stand in docs/insight-structure.md.

    Args:
        run: any run; its weights are all that is read.

    Returns:
        One row a filter whose weights are finite, without NaN:

        - layer, filter.
        - norm: root of the sum of the squared weights.
        - effective_size: in taps along a dimension; a uniform kernel has its own width.
        - orientation: direction in which the kernel varies most, degrees in [0, 180) from the last
          dimension towards the one before (0: varies along x, a vertical edge); of three
          dimensions within the last two. 0 where there is no direction.
        - frequency: of the largest magnitude of its spectrum, cycles per input position of the
          layer; 0 for a low-pass.
        - separability: in [0, 1], 1 for a product of one-dimensional kernels.
        - symmetry: in [-1, 1], 1 for even about some point, -1 for odd.
        - kind: "low-pass", "edge", "bar", "blob", "noise"; "point" where the kernel has one tap
          and "zero" where all its weights are 0 (its other figures are 0).

    Raises:
        InputError: no layer of the run has weights.
    """
    tables = []
    for name in run.layers:
        layer = run[name]
        weight = layer.weight
        if weight is None or weight.ndim < 3 or not weight.size:
            continue
        dilation = layer.info.dilation or (1,) * (weight.ndim - 2)
        usable = np.flatnonzero(finite_weights(weight))
        if not len(usable):
            continue
        tables.append({"layer": name, "filter": usable, **describe(weight[usable], dilation)})
    if not tables:
        raise InputError(
            f"no layer of {run.path} has spatial kernels that are finite; extract convolutions"
        )
    return pd.concat([pd.DataFrame(table) for table in tables], ignore_index=True)


def describe(weight: np.ndarray, dilation: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """The columns of `kernels` for weights [C, C_in, *kernel], each [C]."""
    weight = weight.astype(np.float64)
    direction, coherence = spectra.orientation(spectra.structure_tensor(weight))
    angle = np.zeros(len(weight))
    if weight.ndim > 3:
        angle = np.degrees(np.arctan2(direction[:, -2], direction[:, -1])) % 180
    angle = np.where((coherence > 1e-6) & (np.abs(angle - 180) > 1e-9), angle, 0)
    found = {
        "norm": np.sqrt((weight**2).reshape(len(weight), -1).sum(1)),
        "effective_size": spectra.effective_size(weight),
        "orientation": angle,
        "frequency": spectra.peak_frequency(weight) / max(dilation, default=1),
        "separability": spectra.separability(weight),
        "symmetry": spectra.symmetry(weight),
    }
    empty = found["norm"] == 0
    found = {name: np.where(empty, 0, values) for name, values in found.items()}
    return found | {"kind": _kind(weight, coherence, found["symmetry"], empty)}


def _kind(
    weight: np.ndarray, coherence: np.ndarray, symmetry: np.ndarray, empty: np.ndarray
) -> np.ndarray:
    """The first kind that fits, in this order; noise where none does."""
    flat = weight.ndim == 3  # in one dimension every kernel has the same direction
    oriented = (coherence >= ORIENTED) & (np.abs(symmetry) >= REGULAR) & (not flat)
    regular = np.abs(symmetry) >= SYMMETRIC
    point = weight[0, 0].size == 1
    rules = [
        (empty, "zero"),
        (np.full(len(weight), point), "point"),
        (oriented & (symmetry < 0), "edge"),
        (oriented, "bar"),
        (spectra.one_signedness(weight) >= ONE_SIGNED, "low-pass"),
        (regular & (symmetry < 0), "edge"),
        (regular, "bar" if flat else "blob"),
    ]
    conditions, names = zip(*rules, strict=True)
    return np.select(conditions, names, "noise")
