"""`report`: a finished run, or two of them, as one page to look at."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from fastconv.errors import InputError, OutputError
from fastconv.export.report.budget import Budget
from fastconv.export.report.chunks import Chunks
from fastconv.export.report.columns import KNOWN, describe
from fastconv.export.report.compare import changes, differences, shared_layers
from fastconv.export.report.page import page
from fastconv.export.report.runs import file_name, run_entry
from fastconv.store.reader import Run, open_run

_START = b"<!doctype html>"


def report(
    run: Run | str | os.PathLike[str],
    out: str | os.PathLike[str],
    other: Run | str | os.PathLike[str] | None = None,
    *,
    progress: bool = True,
) -> Path:
    """Make a page that shows every filter of a run; it needs neither network nor the run.

    What the run did not keep is named in the page, with the call that would keep it. Of large runs
    fewer and smaller patches go into the page, which says so: see docs/report.md.

    Args:
        run: a finished run, or its file.
        out: the page to make, such as "report.html"; an older page is replaced.
        other: a second run to show beside it; filters of layers of the same name are compared.
        progress: show layers done and the time left.

    Returns:
        The path of the page.

    Raises:
        FileFormatError: a run is missing, incomplete or damaged.
        InputError: the two runs have no layer in common.
        OutputError: `out` cannot be written, or is a file of another kind.
    """
    out = Path(out)
    _check_output(out)
    with ExitStack() as opened:
        runs = [
            given if isinstance(given, Run) else opened.enter_context(open_run(given))
            for given in (run, other)
            if given is not None
        ]
        empty = [file_name(given) for given in runs if not given.layers]
        if empty:
            raise InputError(f"{empty[0]} has no layers to show")
        chunks = Chunks()
        index = _index(runs, chunks, progress=progress)
        title = " and ".join(file_name(given) for given in runs)
        _write(out, page(f"{title} · fastconv", index, chunks))
    return out


def _index(runs: list[Run], chunks: Chunks, *, progress: bool) -> dict:
    budget = Budget.of(runs)
    extra, comparison = {}, None
    if len(runs) == 2:
        comparison = {"layers": shared_layers(*runs), "differences": differences(*runs)}
        extra = changes(*runs)
    entries = [
        run_entry(run, chunks, budget, extra if number == 0 else {}, progress=progress)
        for number, run in enumerate(runs)
    ]
    names = [
        name for found in entries for layer in found["layers"] for name in layer["table"]["arrays"]
    ]
    ordered = sorted(dict.fromkeys(names), key=lambda n: [*KNOWN, n].index(n))
    return {
        "runs": entries,
        "columns": {name: describe(name) for name in ordered},
        "comparison": comparison,
    }


def _check_output(out: Path) -> None:
    """Say what is wrong with the output before any work is done."""
    if out.is_dir():
        raise OutputError(f"{out} is a folder; name a file in it, such as {out / 'report.html'}")
    if not out.parent.is_dir():
        raise OutputError(f"there is no folder {out.parent}; make it first")
    if out.exists():
        with out.open("rb") as file:
            if file.read(len(_START)).lower() not in (_START, b""):
                raise OutputError(f"{out} exists and is no HTML page; give another name")


def _write(out: Path, pieces: Iterable[str]) -> None:
    """Write a file that appears under its name only when it is whole."""
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(pieces)
        temporary.replace(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
