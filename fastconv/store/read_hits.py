"""The hits of a layer, as they are read from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastconv.format.result import STATUS
from fastconv.store import schema
from fastconv.store.join import pandas_needed

if TYPE_CHECKING:
    import pandas


class Hits(NamedTuple):
    """The top-k of a layer, best first; empty slots hold NaN, -1, -1, 0, 0.

    Example:
        >>> import fastconv
        >>> with fastconv.open(example) as run:
        ...     hits = run["conv1"].topk
        >>> hits.values.shape, hits.box.shape
        ((6, 4), (6, 4, 2, 2))
    """

    values: np.ndarray  # [C, k] float32
    sample: np.ndarray  # [C, k] int64, index in the data set
    position: np.ndarray  # [C, k, D] int64, in output positions
    box: np.ndarray  # [C, k, D_in, 2] int64, start and stop in input pixels
    status: np.ndarray  # [C, k] uint8, index into ("exact", "bound", "global")

    def to_pandas(self) -> pandas.DataFrame:
        """One row a hit, empty slots left out.

        Columns: filter, rank, value, sample; of every output dimension d (`y`, `x` of images)
        position_d; of every input dimension start_d and stop_d; status.

        Raises:
            InputError: pandas is not installed.
        """
        pd = pandas_needed()
        filters, ranks = np.nonzero(self.sample >= 0)
        columns: dict[str, Any] = {"filter": filters, "rank": ranks}
        columns |= {"value": self.values[filters, ranks], "sample": self.sample[filters, ranks]}
        for d, name in enumerate(schema.SPATIAL[self.position.shape[-1]]):
            columns[f"position_{name}"] = self.position[filters, ranks, d]
        for d, name in enumerate(schema.SPATIAL[self.box.shape[-2]]):
            for side, end in enumerate(("start", "stop")):
                columns[f"{end}_{name}"] = self.box[filters, ranks, d, side]
        columns["status"] = np.array(STATUS)[self.status[filters, ranks]]
        return pd.DataFrame(columns)
