"""The page itself: skeleton, style, script, index and chunks in one file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from fastconv.export.report.chunks import Chunks

# in an order in which each file comes after those whose names it uses at once
SCRIPTS = (
    "dom.js",
    "format.js",
    "colours.js",
    "data.js",
    "samples.js",
    "route.js",
    "draw.js",
    "charts.js",
    "card.js",
    "grid.js",
    "select.js",
    "view_network.js",
    "view_filters.js",
    "panel.js",
    "filter_hits.js",
    "filter_pictures.js",
    "filter_tables.js",
    "view_filter.js",
    "view_classes.js",
    "view_embedding.js",
    "view_about.js",
    "keys.js",
    "main.js",
)
STYLES = ("base.css", "charts.css", "network.css", "grid.css", "filter.css", "samples.css")
_IMPORT = re.compile(r"^import\s[^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class)\b)", re.MULTILINE)


def page(title: str, index: dict[str, Any], chunks: Chunks) -> Iterator[str]:
    """The page in pieces; the chunks come last, so that it shows before they have arrived."""
    style, script = _joined_styles(), joined_scripts()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        )
    )
    filled = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "style": style,
        "index": _json(index),
        "script": script,
    }
    head, tail = _source("page.html").split("{{chunks}}")
    yield re.sub(r"{{(\w+)}}", lambda found: filled[found[1]], head)
    yield from chunks.elements()
    yield tail


@cache
def joined_scripts() -> str:
    """All modules as one script: a page opened from a folder cannot import others."""
    parts = [_EXPORT.sub("", _IMPORT.sub("", _source(name))).strip() for name in SCRIPTS]
    body = "\n\n".join(parts)
    return f'"use strict";\n(() => {{\n{body}\n}})();\n'


@cache
def _joined_styles() -> str:
    return "\n".join(_source(name) for name in STYLES)


def _source(name: str) -> str:
    return (resources.files("fastconv.export.report") / "web" / name).read_text("utf-8")


def _digest(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
