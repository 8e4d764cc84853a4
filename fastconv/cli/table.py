"""Tables of at most 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 100
_GAP = "  "


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)
) -> str:
    """Rows under headings, right-aligned but for the columns `left`.

    A too wide table is narrowed in its first column, whose texts lose their middle.
    """
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    rest = sum(widths[1:]) + len(_GAP) * (len(widths) - 1)
    widths[0] = max(8, min(widths[0], WIDTH - rest))
    for line in lines:
        line[0] = shorten(line[0], widths[0])
    return "\n".join(
        _GAP.join(
            text.ljust(width) if i in left else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def shorten(text: str, width: int) -> str:
    """The text, with its middle left out where it is longer than `width`."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]
