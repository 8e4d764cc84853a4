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
    """Leave out the pages of `nav` that do not exist."""
    config["nav"] = _existing(config["nav"])
    return config


def _existing(entries: list) -> list:
    kept = []
    for entry in entries:
        ((title, where),) = entry.items()
        if isinstance(where, list):
            where = _existing(where)
        if where if isinstance(where, list) else (DOCS / where).exists():
            kept.append({title: where})
    return kept


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write the command line where a page asks for it."""
    return markdown.replace(MARK, command_line()) if MARK in markdown else markdown


def command_line() -> str:
    """Every command with its help, as Markdown."""
    os.environ["COLUMNS"] = "92"  # of the help, whatever the terminal
    from fastconv.cli.main import parser

    parts = [f"## {words}\n\n```text\n{p.format_help()}```\n" for words, p in _parsers(parser())]
    return "\n".join(parts)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _parsers(child)
