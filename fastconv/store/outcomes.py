"""What the model said of the samples, as a mapping of arrays and as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.errors import InputError
from fastconv.format.result import SampleTable
from fastconv.store.join import by_sample, pandas_needed, read_table

if TYPE_CHECKING:
    import pandas


class Outcomes(Mapping[str, np.ndarray]):
    """label, prediction int64, confidence float32, correct uint8: [N] each; empty if not kept.

    Of a multi-label model [N, K], one column a class: label 0, 1 or -1 (missing), prediction 0 or
    1, confidence that the class holds. Label and prediction are -1 and confidence is NaN where a
    sample was skipped.

    Example:
        >>> import fastconv
        >>> with fastconv.open(example) as run:
        ...     outcomes = run.outcomes
        >>> outcomes["label"].tolist(), outcomes["correct"].tolist()
        ([0, 1, 2, 0, 1, 2, 0, 1], [0, 0, 1, 0, 0, 1, 0, 0])
    """

    def __init__(self, samples: SampleTable) -> None:
        self._samples = samples

    def __getitem__(self, name: str) -> np.ndarray:
        return self._samples.outcomes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples.outcomes)

    def __len__(self) -> int:
        return len(self._samples.outcomes)

    def __repr__(self) -> str:
        return f"<Outcomes of {self._samples.count} samples: {', '.join(self) or 'none'}>"

    def to_pandas(self) -> pandas.DataFrame:
        """One row a sample: its index `sample`, its name `key` where it has one, and the outcomes.

        Those of a multi-label model are columns such as `label_edema`, by class name or number.

        Raises:
            InputError: the run kept none, or pandas is not installed.
        """
        pd, samples = pandas_needed(), self._samples
        if not self:
            raise InputError("the run has no outcomes; extract it with outcomes=True")
        columns: dict[str, Any] = {"sample": np.arange(samples.count)}
        if samples.keys is not None:
            columns["key"] = list(samples.keys)
        for name, values in self.items():
            if values.ndim == 1:
                columns[name] = values
                continue
            names = samples.class_names()
            if names is None or len(names) != values.shape[1]:
                names = [str(number) for number in range(values.shape[1])]
            columns |= {f"{name}_{one}": values[:, k] for k, one in enumerate(names)}
        return pd.DataFrame(columns)

    def join(
        self, table: pandas.DataFrame | str | os.PathLike[str], on: str | None = None
    ) -> pandas.DataFrame:
        """The outcomes, and what a table beside the run knows of the same samples.

        Args:
            table: a DataFrame, or a CSV file.
            on: the column that says which sample a row is of, by its index (whole numbers) or its
                name (text); default `sample` or `key`, else the rows are all samples in order.

        Returns:
            One row a sample [N]: the columns of `to_pandas`, then those of the table; NaN where it
            has no row of a sample.

        Raises:
            InputError: no such column; two rows of a sample, or rows of samples that the run lacks;
                no outcomes; no CSV file; a column of a name that outcomes have.

        Example:
            >>> import fastconv, pandas
            >>> sites = pandas.DataFrame({"sample": [1, 0], "site": ["south", "north"]})
            >>> with fastconv.open(example) as run:
            ...     run.outcomes.join(sites)[["sample", "correct", "site"]].head(3)
               sample  correct   site
            0       0        0  north
            1       1        0  south
            2       2        1    NaN
        """
        found = self.to_pandas()
        other = by_sample(read_table(table), self._samples.count, self._samples.keys, on)
        both = [str(name) for name in other if name in found]
        if both:
            raise InputError(
                f"the table and the outcomes both have {', '.join(both)}; rename it in the table"
            )
        return found.join(other.reset_index(drop=True))
