"""A network as SVG."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from fastconv.export.layering import Layered, layered

if TYPE_CHECKING:
    from fastconv.export.network import Network, Node

WIDTH, HEIGHT, GAP_X, GAP_Y, BEND = 190, 64, 26, 34, 34  # pixels, as all lengths here
MARGIN, HEAD, SCALE = 24, 76, 264
INK, MUTED, LINE = "#1c2330", "#667085", "#8a93a5"
_FONT = "DejaVu Sans, Verdana, sans-serif"


def svg(network: Network) -> str:
    """The network from top to bottom, with a scale of its colours."""
    names = [node.name for node in network.nodes]
    placed = layered(names, network.edges, WIDTH + GAP_X, BEND)
    right = max((placed.x[node] for node in placed.x), default=0) + (WIDTH + GAP_X) / 2
    width = max(right + 2 * MARGIN, 640)
    depth = max(placed.level.values(), default=-1) + 1
    height = HEAD + depth * (HEIGHT + GAP_Y) + MARGIN
    root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    root.set("width", f"{width:g}")
    root.set("height", f"{height:g}")
    root.set("viewBox", f"0 0 {width:g} {height:g}")
    root.set("font-family", _FONT)
    _add(root, "title", f"{len(names)} layers, coloured by the {network.statistic}")
    _add(root, "rect", width="100%", height="100%", fill="white")
    _legend(root, network)
    left = MARGIN + max(0.0, (width - 2 * MARGIN - right) / 2)
    for route in placed.routes:
        _edge(root, placed, route, left)
    for node in network.nodes:
        x, y = _middle(placed, node.name, left)
        _node(root, node, network.statistic, x - WIDTH / 2, y - HEIGHT / 2)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def ink_on(colour: str) -> str:
    """Black or white, whichever can be read on a colour (relative luminance of WCAG 2)."""
    red, green, blue = ((v / 255) ** 2.2 for v in bytes.fromhex(colour[1:]))
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "white"


def _middle(placed: Layered, node: object, left: float) -> tuple[float, float]:
    y = HEAD + placed.level[node] * (HEIGHT + GAP_Y) + HEIGHT / 2
    return left + placed.x[node], y


def _edge(root: ET.Element, placed: Layered, route: list, left: float) -> None:
    """A curve from the foot of a node to the head of another, straight past those between."""
    points = [_middle(placed, node, left) for node in route]
    path = f"M{points[0][0]:.1f} {points[0][1] + HEIGHT / 2:.1f}"
    for i, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        start, stop = y0 + HEIGHT / 2, y1 - HEIGHT / 2
        middle = (start + stop) / 2
        path += f"L{x0:.1f} {start:.1f}" if i else ""
        path += f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {stop:.1f}"
    _add(root, "path", d=path, fill="none", stroke=LINE, stroke_width="1.5")
    x, y = points[-1][0], points[-1][1] - HEIGHT / 2
    head = f"M{x - 4:.1f} {y - 7:.1f}L{x:.1f} {y:.1f}L{x + 4:.1f} {y - 7:.1f}Z"
    _add(root, "path", d=head, fill=LINE)


def _node(root: ET.Element, node: Node, statistic: str, x: float, y: float) -> None:
    group = _add(root, "g")
    _add(group, "title", "\n".join([node.name, *node.lines, f"{statistic}: {node.value:.4g}"]))
    box = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": str(WIDTH), "height": str(HEIGHT), "rx": "8"}
    _add(group, "rect", fill=node.colour, stroke=LINE, **box)
    style = {"x": f"{x + WIDTH / 2:.1f}", "text_anchor": "middle", "fill": ink_on(node.colour)}
    name = shorten(node.name, 26)
    _add(group, "text", name, y=f"{y + 19:.1f}", font_size="12", font_weight="bold", **style)
    for i, line in enumerate((*node.lines, f"{node.value:.4g}")):
        _add(
            group, "text", shorten(line, 32), y=f"{y + 33 + 12 * i:.1f}", font_size="10.5", **style
        )


def _legend(root: ET.Element, network: Network) -> None:
    """The statistic in words, its scale, and whether the edges were traced."""
    _add(root, "text", network.statistic, x=str(MARGIN), y="22", font_size="12", fill=INK)
    step = SCALE / len(network.scale)
    for i, (_, colour) in enumerate(network.scale):
        box = {"x": f"{MARGIN + i * step:.2f}", "y": "30", "width": f"{step + 0.5:.2f}"}
        _add(root, "rect", height="12", fill=colour, **box)
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        value = network.scale[round(share * (len(network.scale) - 1))][0]
        style = {"x": f"{MARGIN + share * SCALE:.1f}", "text_anchor": anchor, "fill": MUTED}
        _add(root, "text", f"{value:.3g}", y="54", font_size="10", **style)
    if not network.traced:
        words = "layers in forward order: the file holds no connections"
        x = str(MARGIN + SCALE + 20)
        _add(root, "text", words, x=x, y="40", font_size="10", fill=MUTED)


def shorten(words: str, length: int) -> str:
    """The words, their middle left out where they are too long."""
    half = (length - 1) // 2
    return words if len(words) <= length else f"{words[:half]}…{words[-half:]}"


def _add(parent: ET.Element, tag: str, words: str = "", **attributes: str) -> ET.Element:
    """A child, `font_size` for font-size; its text without the characters that XML forbids."""
    child = ET.SubElement(parent, tag)
    for name, value in attributes.items():
        child.set(name.replace("_", "-"), value)
    if words:
        child.text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in words)
    return child
