"""WebDataset tar shards as a data set that is read by index."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastconv.data.formats import Format, format_of
from fastconv.data.media import MediaDataset, Source
from fastconv.errors import DataError

_LABEL = "cls"


class TarShards(MediaDataset):
    """Uncompressed tar files whose neighbouring members of one name are a sample.

    Of `0001.jpg`, `0001.cls`, `0001.json` the first one of a known format is the input, and a
    whole number in `.cls` the label. Only the headers are read beforehand, and where each sample
    lies is kept: about 120 bytes a sample.

    Args:
        shards: the tar files, in order.
        options: of `MediaDataset`.

    Attributes:
        keys: name of each sample's input in its shard, with the shard where there are several.
        labels: of each sample, or None where a sample has none.

    Raises:
        DataError: no shard, a file that is no tar file, or nothing in them that can be read.
    """

    def __init__(self, shards: Sequence[str | os.PathLike[str]], **options: Any):
        super().__init__(**options)
        self.shards = [Path(shard) for shard in shards]
        self.keys = []
        labels: list[int | None] = []
        self._formats: list[Format] = []
        self._places = array("q")  # shard, offset and size of each sample, one after the other
        for number, shard in enumerate(self.shards):
            for member, format, label in _samples(shard):
                self._formats.append(format)
                self._places.extend((number, member.offset_data, member.size))
                name = member.name
                self.keys.append(f"{shard.name}/{name}" if len(self.shards) > 1 else name)
                labels.append(label)
        if not self.keys:
            what = ", ".join(map(str, self.shards[:3])) or "no file"
            raise DataError(f"no samples that can be read in tar shards: {what}")
        found = [label for label in labels if label is not None]
        self.labels = found if len(found) == len(labels) else None
        self._settle(i for i, f in enumerate(self._formats) if f.name == "audio")

    def source(self, index: int) -> Source:
        number, offset, size = self._places[3 * index : 3 * index + 3]
        with self.shards[number].open("rb") as file:
            file.seek(offset)
            held = file.read(size)
        format = self._formats[index]
        if format.several and (count := format.module().count(io.BytesIO(held))) > 1:
            raise DataError(
                f"{self.keys[index]} holds {count} pages or frames; a sample of a shard is one"
            )
        return format, io.BytesIO(held), 0


def _samples(shard: Path) -> Iterator[tuple[tarfile.TarInfo, Format, int | None]]:
    """The input, its format and the label of every sample, in order."""
    for _, members in itertools.groupby(_members(shard), lambda entry: _key(entry[0].name)):
        chosen = label = None
        for member, number in members:
            label = number if label is None else label
            if chosen is None and (format := format_of(f"_.{_suffix(member.name)}")):
                chosen = (member, format)
        if chosen is not None:
            yield *chosen, label


def _key(name: str) -> str:
    """All before the first dot of the file's name: the same for the members of a sample."""
    return name[: len(name) - len(_suffix(name)) - 1]


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2]


def _members(shard: Path) -> Iterator[tuple[tarfile.TarInfo, int | None]]:
    """Every file of a shard, and the number in it if it is a label."""
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # which would hold every header
                if member.isfile():
                    yield member, _label(tar, member)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard} cannot be read as an uncompressed tar file: {error}") from error


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo) -> int | None:
    if not member.name.endswith(f".{_LABEL}"):
        return None
    file = tar.extractfile(member)
    try:
        return int(file.read(32)) if file else None
    except ValueError:
        return None
