"""The files of a folder that can be read, in order, with their classes."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastconv.data.formats import Format, format_of, format_of_content

_NAMED = 3  # files that a message names
_WHOLE = -1  # a file that is one sample


@dataclass
class Listing:
    """All samples of a folder, by class and then by path: columns, as there may be millions.

    Attributes:
        keys: path of each inside the folder, and `#0`, `#1` ... where a file holds several.
        formats: how its file is read.
        labels: its class, -1 without one; None where there are no class folders.
        classes: their names, by label; empty without.
        remarks: one line each on files that are left out, or have no class.
    """

    keys: list[str] = field(default_factory=list)
    formats: list[Format] = field(default_factory=list)
    labels: list[int] | None = None
    classes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    _pages: array = field(default_factory=lambda: array("i"))

    def place(self, index: int) -> tuple[str, int]:
        """The file of a sample, inside the folder, and its page there."""
        key, page = self.keys[index], self._pages[index]
        return (key, 0) if page == _WHOLE else (key.rpartition("#")[0], page)

    def add(self, file: str, format: Format, count: int, label: int | None) -> None:
        """Add all samples of a file."""
        pages = [_WHOLE] if count == 1 else range(count)
        self.keys += [file if page == _WHOLE else f"{file}#{page}" for page in pages]
        self._pages.extend(pages)
        self.formats += [format] * count
        if self.labels is not None and label is not None:
            self.labels += [label] * count


def listing(root: Path) -> Listing:
    """List a folder with all its sub-folders.

    The folders of the first level are the classes, numbered in order of their names, if anything
    in them can be read; a file beside them then has the label -1. Otherwise there are no labels.
    Hidden files and folders are passed over.
    """
    readable: list[tuple[str, Format]] = []
    left_out: list[str] = []
    for file in sorted(_files(root), key=lambda file: file.split("/")):
        format = format_of(file)
        if format is None and "." not in file.rpartition("/")[2]:
            format = format_of_content(root / file)
        if format is None:
            left_out.append(file)
        else:
            readable.append((file, format))
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    labelled = any("/" in file for file, _ in readable)
    number = {name: label for label, name in enumerate(folders)}
    found = Listing(labels=[] if labelled else None, classes=folders if labelled else [])
    for file, format in readable:
        found.add(file, format, _count(root / file, format), number.get(file.split("/")[0], -1))
    if left_out:
        found.remarks.append(f"{_names(left_out)} left out of {root}: no known format")
    stray = [file for file, _ in readable if labelled and "/" not in file]
    if stray:
        found.remarks.append(f"{_names(stray)} of no class (label -1): beside the class folders")
    return found


def _files(root: Path) -> Iterator[str]:
    """Paths inside the folder; links are followed, but no folder is entered twice."""
    entered = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        folders[:] = [] if here in entered else [f for f in folders if not f.startswith(".")]
        if here in entered:
            continue
        entered.add(here)
        inside = Path(folder).relative_to(root).as_posix()
        before = "" if inside == "." else f"{inside}/"
        yield from (before + name for name in files if not name.startswith("."))


def _count(path: Path, format: Format) -> int:
    """The samples in a file."""
    module = format.module()
    if not format.several:
        return 1
    try:
        return module.count(path)
    except Exception:  # noqa: BLE001 - libraries raise what they like; reading it will say why
        return 1


def _names(files: list[str]) -> str:
    named = ", ".join(files[:_NAMED])
    more = f" and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
    return f"{len(files):,} file{'s' if len(files) > 1 else ''} ({named}{more})"
