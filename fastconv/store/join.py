"""Tables from beside a run, in the order of its samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastconv.errors import InputError

if TYPE_CHECKING:
    import pandas


def pandas_needed() -> Any:
    """The library pandas, which only these tables need.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError("pandas is missing: pip install 'fastconv[insight]'") from None
    return pandas


def read_table(table: pandas.DataFrame | str | os.PathLike[str]) -> pandas.DataFrame:
    """A table, or that of a CSV file.

    Raises:
        InputError: no CSV file that can be read.
    """
    pd = pandas_needed()
    if isinstance(table, pd.DataFrame):
        return table
    try:
        return pd.read_csv(table)
    except (OSError, ValueError, TypeError) as error:  # pandas' own errors are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{table} is no CSV file that can be read: {reason}") from error


def by_sample(
    table: pandas.DataFrame, count: int, keys: Sequence[str] | None, on: str | None = None
) -> pandas.DataFrame:
    """The rows of a table in the order of `count` samples; empty where it lacks a sample.

    Args:
        table: one row a sample, or fewer.
        count: samples of the run.
        keys: their names.
        on: the column that says which sample a row is of, by its index (whole numbers) or its name
            (`key`, and text); default `sample` or `key`, else the rows are all samples in order.

    Raises:
        InputError: no such column, two rows of a sample, or rows of no sample of the run.
    """
    if on is not None and on not in table:
        raise InputError(f"the table has no column {on!r}; it has {', '.join(map(str, table))}")
    if on is None:
        known = ("sample",) if keys is None else ("sample", "key")
        on = next((name for name in known if name in table), None)
    if on is None:
        if len(table) != count:
            raise InputError(
                f"the table has {len(table)} rows, the run {count} samples; add a column 'sample' "
                "with their indices"
            )
        return table
    rows = table[table[on].notna()]
    if rows[on].duplicated().any():
        twice = rows[on][rows[on].duplicated()].iloc[0]
        raise InputError(f"the table has two rows of {on} {twice}; give one a sample")
    by_index = on != "key" and rows[on].dtype.kind in "iuf"
    if by_index:
        _check_indices(rows[on], on, count)
    elif keys is None:
        raise InputError(f"the column {on!r} names samples, but the run has no names; give indices")
    samples: Sequence[Any] = range(count) if by_index else list(keys or ())
    if not by_index and not rows[on].isin(samples).any():
        raise InputError(f"none of the table's {on}s is a sample of the run")
    return rows.set_index(on, drop=on in ("sample", "key")).reindex(samples)


def _check_indices(values: pandas.Series, on: str, count: int) -> None:
    wrong = values[(values < 0) | (values >= count) | (values % 1 != 0)]
    if len(wrong):
        raise InputError(
            f"the table has {on} {wrong.iloc[0]:.15g}, which the run lacks: it has samples 0 ... "
            f"{count - 1}"
        )
