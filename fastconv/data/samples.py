"""A data set read by index, whatever it is made of."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastconv.data.random_state import random_state_kept, seed_all
from fastconv.data.tensors import Inputs, bytes_of, prepared
from fastconv.errors import DataError, InputError

__all__ = ["Batch", "Samples", "Unit", "check_not_random", "check_unit", "prepared"]

_FINGERPRINTED = 16
_READ_AGAIN = 8  # times, where random numbers are drawn: a coin shows itself but for 1 in 256

Unit = Sequence[int]  # the sample indices of one batch: a range, or a list
Batch = tuple[Inputs, Tensor | None]


class Samples(ABC):
    """A data set that is read by index and gives the same values each time.

    Attributes:
        sample_shape: shape of one input, without the batch dimension; of several inputs, that of
            the first, which boxes refer to.
        input_dtype: name of the dtype that the data set gives, and batches have. Integers and
            booleans reach the model `prepared`: as float32 with the same values (0 ... 255 for
            uint8: nothing is scaled); other dtypes are left as they are.
        skip: leave samples that cannot be read, or do not fit the others, out of the batches.
        skipped: these samples and why, as their batches were last read.
        column_values: by name, one value for each row of the batch that was last read.
        unit_keys: names of all samples of the unit that was last read, where `keys` cannot tell
            them beforehand.
        by_index: whether any sample can be read without those before it.
    """

    skip: bool = False
    skipped: dict[int, str]
    column_values: Mapping[str, list[Any]] = MappingProxyType({})
    unit_keys: list[str] | None = None
    by_index: bool = True
    kind: str
    sample_shape: tuple[int, ...]
    input_dtype: str
    layout: torch.memory_format = torch.preserve_format  # of batches that are copied anyway

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def length(self) -> int | None:
        """The number of samples; None of a stream whose end has not been seen."""
        return len(self)

    def expect(self, length: int) -> None:
        """Take the length of a stream from one who has seen its end."""
        assert length == self.length

    @abstractmethod
    def batches(self, units: Iterable[Unit], num_workers: int = 0) -> Iterator[Batch]:
        """Yield (input [n, ...], labels int64 [n] or None), one batch per unit, in their order.

        Several inputs are a tuple or a dict of tensors [n, ...].

        Its rows are the samples `kept(unit)`; all of the unit unless `skip` is set.

        Raises:
            DataError: a sample that raises or differs in shape (the message has its index), or a
                worker process that died.
        """

    def kept(self, unit: Unit) -> list[int]:
        """The samples of a unit that its batch held when it was last read."""
        return [i for i in unit if i not in self.skipped]

    def first(self) -> int:
        """The first sample that can be read."""
        for index in range(len(self)):
            next(iter(self.batches([[index]])))
            if index not in self.skipped:
                return index
        raise DataError(f"none of the {len(self)} samples can be read: {self.skipped[0]}")

    def spread(self, count: int) -> list[int]:
        """At most `count` samples, evenly spaced, the first and the last included."""
        n = len(self)
        return sorted({round(i) for i in np.linspace(0, n - 1, min(n, count))})

    def keep_columns(self, names: Sequence[str]) -> None:
        """Read these columns of every sample from now on, into `column_values`.

        Raises:
            InputError: the samples have no columns.
        """
        if names:
            raise InputError(
                f"columns={list(names)!r}: the samples of {self.kind} have none; give a data set "
                "whose samples are dicts"
            )

    @abstractmethod
    def require_labels(self) -> None:
        """From now on, take 0 and 1 for labels too, as numbers of any kind or in vectors [K].

        Batches then have labels int64 [n] or [n, K], -1 where missing (-1 or NaN).

        Raises:
            DataError: other numbers, now or when they are read.
        """

    def classes(self) -> list[str] | None:
        """The name of every label, where the data set has them."""
        return None

    @abstractmethod
    def keys(self) -> list[str] | None:
        """One name per sample (a file's path inside its folder), or None."""

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data; the same in every process and on every machine.

        `contents_sha256` covers inputs and labels of 16 evenly spaced samples, the first and the
        last included, and of a stream its first 16; `keys_sha256` covers every key that is known
        beforehand. Random augmentation would change it from run to run: `open_data` refuses a data
        set whose first sample differs when read again.
        """
        contents = hashlib.sha256()
        for x, label in self.batches([[i] for i in self.spread(_FINGERPRINTED)]):
            contents.update(bytes_of(prepared(x)) + (b"" if label is None else bytes_of(label)))
        keys = self.keys()
        joined = None if keys is None else "\0".join(keys).encode(errors="surrogateescape")
        return {
            "length": self.length,
            "kind": self.kind,
            "keys_sha256": None if joined is None else hashlib.sha256(joined).hexdigest(),
            "contents_sha256": contents.hexdigest(),
            "sample_shape": list(self.sample_shape),
            "dtype": self.input_dtype,
        }


def check_unit(unit: Unit, length: int | None) -> None:
    if len(unit) == 0 or min(unit) < 0 or (length is not None and max(unit) >= length):
        most = "" if length is None else length - 1
        raise InputError(f"sample indices must be in 0 ... {most} and not empty, got {unit}")


def check_not_random(what: str, read: Callable[[], Inputs]) -> None:
    """Read something again, each time under another seed.

    Raises:
        DataError: it differs, as with a random transform it does.
    """
    with random_state_kept():
        first, moved = _under_seed(0, read)
        for seed in range(1, 1 + (_READ_AGAIN if moved else 1)):
            if _under_seed(seed, read)[0] != first:
                raise DataError(
                    f"the data set is random: {what} differs when it is read again, so no result "
                    "could be resumed or verified; leave its random transforms out (flips, crops, "
                    "noise), and its shuffling, as for validation"
                )


def _under_seed(seed: int, read: Callable[[], Inputs]) -> tuple[bytes, bool]:
    """The bytes that are read, and whether that draws from the global random state."""
    seed_all(seed)
    with random_state_kept() as moved:
        return bytes_of(read()), moved()
