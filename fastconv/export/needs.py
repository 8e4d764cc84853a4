"""Checks that every export begins with: an optional package, a place to write, layers by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

from fastconv.errors import InputError, OutputError, UnknownLayerError
from fastconv.store.reader import Layer, Run


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Raises:
        InputError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        missing = package if error.name in (None, module) else error.name
        raise InputError(
            f"{missing} is not installed; pip install 'fastconv[{extra}]' brings it"
        ) from error


def make_folder(folder: str | os.PathLike[str], pattern: str) -> Path:
    """Make a folder for files of a pattern, with its parents.

    Raises:
        OutputError: it cannot be written, or already holds such files.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder")
    if next(folder.rglob(pattern), None) is not None:
        raise OutputError(f"{folder} already holds {pattern}; remove them or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} cannot be written; name another folder")
    return folder


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written ({error.strerror}); name another place")


def chosen_layers(run: Run, layers: str | Iterable[str] | None) -> list[Layer]:
    """The layers that names and globs choose, in forward order; None chooses all.

    Raises:
        UnknownLayerError: one of them fits no layer.
    """
    if layers is None:
        return [run[name] for name in run.layers]
    wanted: set[str] = set()
    for item in [layers] if isinstance(layers, str) else layers:
        found = [name for name in run.layers if name == item or fnmatchcase(name, item)]
        if not found:
            if any(c in item for c in "*?["):
                raise UnknownLayerError(f"no layer of {run.path} fits {item!r}")
            run[item]  # raises, and lists near matches
        wanted.update(found)
    return [run[name] for name in run.layers if name in wanted]
