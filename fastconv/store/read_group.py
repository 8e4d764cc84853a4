"""The arrays of one group of a file, each checked and read when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from fastconv.errors import InputError
from fastconv.format.result import LayerInfo
from fastconv.store.open_file import OpenFile
from fastconv.store.schema import Field

KEPT_BY = {  # group of a layer: what keeps it
    "overview": "patches=True, for the samples as they are",
    "patches": "patches=True",
    "topk": "topk >= 1",
    "bottomk": 'order="both"',
    "bottomk_patches": 'order="both" and patches=True',
    "stats": "stats=True",
    "merge": "stats=True",
    "histogram": "quantiles=True",
    "weights": "a layer that has weights",
    "samples": "samples=True",
    "activations": "maps=...",
}


class ArrayGroup(Mapping[str, np.ndarray]):
    """The arrays of one group by name; they are read once and cannot be written to."""

    def __init__(
        self, file: OpenFile, path: tuple[str, ...], fields: Mapping[str, Field], info: LayerInfo
    ) -> None:
        self.file, self.path = file, path
        self._fields, self._info = fields, info
        self._arrays: dict[str, np.ndarray] = {}
        self._sizes = {
            "filter": info.channels,
            "output_dimension": len(info.size),
            "input_dimension": len(info.fields),
            "side": 2,
            "color": 3,
        }

    @property
    def group(self) -> h5py.Group:
        """The group; raises InputError when the run did not keep it."""
        if not self.file.has(*self.path):
            name = self.path[-1]
            raise InputError(
                f"the run kept no {name} of {self._info.name}; extract it with {KEPT_BY[name]}"
            )
        return self.file.group(*self.path)

    def dataset(self, name: str) -> h5py.Dataset:
        """One array, checked but not read."""
        group = self.group
        if name not in self._fields:
            raise KeyError(f"{name}; there are {', '.join(self._fields)}")
        with self.file.reading():
            return self.file.guard.dataset(group, name, self._fields[name], self._sizes)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            dataset = self.dataset(name)
            with self.file.reading():
                values = np.asarray(dataset[()])
            values.flags.writeable = False
            self._arrays[name] = values
        return self._arrays[name]

    def row(self, name: str, index: int) -> np.ndarray:
        """One row of an array, which is read alone unless all of it was read before."""
        if name in self._arrays:
            return self._arrays[name][index]
        dataset = self.dataset(name)
        with self.file.reading():
            return np.asarray(dataset[index])

    def fetch(self) -> None:
        """Fetch all arrays at once, where the file lies elsewhere and none was read yet."""
        if self.file.elsewhere and not self._arrays:
            self.file.fetch(map(self.dataset, self._fields))

    def held(self, name: str) -> np.ndarray | None:
        """An array, or None where the group lacks it."""
        if name not in self:
            return None
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        self.group  # noqa: B018 - raises when it was not kept
        return name in self._fields and self.file.has(*self.path, str(name))
