"""One filter of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastconv.errors import InputError

if TYPE_CHECKING:
    from fastconv.store.read_layer import Layer


class Filter:
    """One filter of a `Layer`: `layer[index]`; it shows itself in a notebook.

    Attributes:
        layer: the layer.
        index: its number there, from 0.

    Raises:
        InputError: the layer has no such filter, or the run did not keep what is asked for.
    """

    def __init__(self, layer: Layer, index: int) -> None:
        if not 0 <= index < layer.info.channels:
            last = layer.info.channels - 1
            raise InputError(f"{layer.name} has filters 0 to {last}, got {index}")
        self.layer, self.index = layer, index

    @property
    def weight(self) -> np.ndarray | None:
        """[C_in/groups, *kernel] float32; None where the layer has no weight."""
        return self.layer.weight_of(self.index)

    @property
    def stats(self) -> dict[str, float]:
        """Its statistics by name, as `Layer.stats` has them."""
        return {name: values[self.index].item() for name, values in self.layer.stats.items()}

    @property
    def patches(self) -> np.ndarray:
        """Its pictures, strongest hit first: [k, h, w, 3] uint8, or [k, C_in, *size] float32."""
        return self.layer.patches[self.index]

    def quantile(self, q: float | list[float] | np.ndarray) -> np.ndarray:
        """[len(q)] float64, as `Layer.quantile`."""
        return self.layer.quantile(q)[self.index]

    def map(self, sample: int) -> np.ndarray:
        """[*spatial] float32: its activation of one sample."""
        return self.layer.map(sample, self.index)

    def __repr__(self) -> str:
        return f"<fastconv.Filter {self.index} of {self.layer.name}>"

    def _repr_html_(self) -> str | None:
        from fastconv.draw.notebook import filter_html

        return filter_html(self.layer, self.index)
