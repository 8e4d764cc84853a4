"""Draw docs/images/architecture.svg: the rooms of the package, tier by tier, from the code itself.

    python docs/draw_architecture.py

Tiers come from tests/test_imports.py, sizes from the files, summaries from module docstrings.
"""

from __future__ import annotations

import ast
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastconv"
WIDTH, ROW, PAD = 980, 64, 12
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1d2733 }
.name { font-weight: 600 } .note { font-size: 11px; fill: #51606f }
rect { fill: #f3f6fa; stroke: #9fb0c3 } .batch rect { fill: #fdf3e1; stroke: #d8a640 }
"""
ON_THE_WAY = {"data", "capture", "run", "ops", "backends", "measure", "store"}  # of a batch


def tiers() -> list[list[str]]:
    """Rooms that exist, top first."""
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text())
    value = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "TIERS"
    )
    found = [sorted(tier) for tier in ast.literal_eval(value)]
    return [kept for tier in found if (kept := [name for name in tier if files_of(name)])]


def files_of(name: str) -> list[Path]:
    folder = PACKAGE / name
    single = folder.with_suffix(".py")
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [single] if single.exists() else []


def summary(name: str) -> str:
    files = files_of(name)
    doc = ast.get_docstring(ast.parse(files[0].read_text())) or ""
    return doc.split("\n")[0].rstrip(".")


def draw() -> str:
    rows, y = [], PAD
    for tier in tiers():
        width = (WIDTH - PAD * (len(tier) + 1)) / len(tier)
        for i, name in enumerate(tier):
            x = PAD + i * (width + PAD)
            files = files_of(name)
            lines = sum(len(path.read_text().splitlines()) for path in files)
            size = f"{len(files)} files, {lines:,} lines" if len(files) > 1 else f"{lines} lines"
            room = int(width / 6.2)
            note = summary(name)
            note = note if len(note) <= room else note[: room - 1].rstrip() + "…"
            css = ' class="batch"' if name in ON_THE_WAY else ""
            label = name + ("/" if (PACKAGE / name).is_dir() else ".py")
            rows.append(
                f'<g{css}><rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW - PAD}" '
                f'rx="6"/><text class="name" x="{x + 10:.0f}" y="{y + 21}">{escape(label)}</text>'
                f'<text class="note" x="{x + width - 10:.0f}" y="{y + 21}" text-anchor="end">'
                f'{escape(size)}</text><text class="note" x="{x + 10:.0f}" y="{y + 40}">'
                f"{escape(note)}</text></g>"
            )
        y += ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" '
        'aria-label="Rooms of the package; imports go down only"><style>' + STYLE + "</style>"
    )
    ground = f'<rect x="0" y="0" width="{WIDTH}" height="{y}" style="fill:#fff;stroke:none"/>'
    return head + ground + "\n".join(rows) + "</svg>\n"


if __name__ == "__main__":
    out = ROOT / "docs" / "images" / "architecture.svg"
    out.write_text(draw())
    print(out, file=sys.stderr)
