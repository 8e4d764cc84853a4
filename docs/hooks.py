"""What MkDocs does beyond its settings: the command line from argparse, only pages that exist."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
MARK = "<!-- command line -->"  # replaced by the help of every command


def on_config(config: Any) -> Any:
    """Leave out the pages of `nav` that do not exist, and list those of a folder."""
    config["nav"] = _existing(config["nav"])
    return config


def _existing(entries: list) -> list:
    kept = []
    for entry in entries:
        ((title, where),) = entry.items()
        if isinstance(where, list):
            where = _existing(where)
        elif where.endswith("/"):
            where = [f"{where}{page.name}" for page in sorted((DOCS / where).glob("*.md"))]
        elif not (DOCS / where).exists():
            continue
        if where:
            kept.append({title: where})
    return kept


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write the command line where a page asks for it."""
    return markdown.replace(MARK, command_line()) if MARK in markdown else markdown


def command_line() -> str:
    """Every command with its help, as Markdown."""
    os.environ["COLUMNS"] = "92"  # of the help, whatever the terminal
    from fastconv.cli.main import COMMANDS, parser

    found = [parser()]
    for name in COMMANDS:
        found += _with_kinds(_children(parser(name))[name])
    parts = [f"## {one.prog}\n\n```text\n{one.format_help()}```\n" for one in found]
    return "\n".join(parts)


def _with_kinds(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for child in _children(parser).values():
        yield from _with_kinds(child)


def _children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of its sub-commands, by name."""
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions[0].choices) if actions else {}
