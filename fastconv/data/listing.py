"""The files of a folder that can be read, in order, with their classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fastconv.data.formats import Format, format_of

_NAMED = 3  # files that a message names


class Entry(NamedTuple):
    """One sample: a file, or a page, frame or volume of it."""

    file: str  # inside the folder
    format: Format
    page: int
    key: str
    label: int | None


@dataclass(frozen=True)
class Listing:
    """All samples of a folder, by class and then by path.

    Attributes:
        entries: the samples.
        labelled: whether there are class folders.
        classes: their names, by label; empty without.
        remarks: one line each on files that are left out, or have no class.
    """

    entries: list[Entry]
    labelled: bool
    remarks: list[str]
    classes: list[str]


def listing(root: Path) -> Listing:
    """List a folder with all its sub-folders.

    The folders of the first level are the classes, numbered in order of their names, if anything
    in them can be read; a file beside them then has the label -1. Otherwise there are no labels.
    Hidden files and folders are passed over.
    """
    classes = {
        p.name: label
        for label, p in enumerate(
            sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        )
    }
    readable: list[tuple[Path, Format]] = []
    left_out: list[Path] = []
    for path in sorted(_files(root)):
        if (format := format_of(root / path)) is None:
            left_out.append(path)
        else:
            readable.append((path, format))
    labelled = any(len(path.parts) > 1 for path, _ in readable)
    entries = []
    for path, format in readable:
        label = classes.get(path.parts[0], -1) if labelled else None
        file = path.as_posix()
        entries += [
            Entry(file, format, index, key, label)
            for index, key in enumerate(_keys(root / path, format, file))
        ]
    remarks = []
    if left_out:
        remarks.append(f"{_names(left_out)} left out of {root}: no known format")
    stray = [path for path, _ in readable if labelled and len(path.parts) == 1]
    if stray:
        remarks.append(f"{_names(stray)} of no class (label -1): beside the class folders")
    return Listing(entries, labelled, remarks, list(classes) if labelled else [])


def _files(root: Path) -> Iterator[Path]:
    """Relative paths; links are followed, but no folder is entered twice."""
    entered = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        folders[:] = [] if here in entered else [f for f in folders if not f.startswith(".")]
        if here in entered:
            continue
        entered.add(here)
        for name in files:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root)


def _keys(path: Path, format: Format, key: str) -> list[str]:
    """One per sample in the file: its path, or with `#0`, `#1` ... where it holds several."""
    module = format.module()
    if not format.several:
        return [key]
    try:
        count = module.count(path)
    except Exception:  # noqa: BLE001 - libraries raise what they like; reading it will say why
        count = 1
    return [key] if count == 1 else [f"{key}#{index}" for index in range(count)]


def _names(paths: list[Path]) -> str:
    named = ", ".join(p.as_posix() for p in paths[:_NAMED])
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    return f"{len(paths):,} file{'s' if len(paths) > 1 else ''} ({named}{more})"
