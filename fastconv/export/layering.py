"""A layered drawing of a directed graph: levels by longest path, few crossings, straight lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import NamedTuple

_SWEEPS = 8


class Layered(NamedTuple):
    """Where the nodes of a graph lie, in units that `layered` was given."""

    x: dict[Hashable, float]  # middle of each node
    level: dict[Hashable, int]  # 0 at the top
    routes: list[list[Hashable]]  # of each edge the nodes that it passes; inner ones are bends


def layered(
    nodes: Sequence[Hashable], edges: Sequence[tuple[Hashable, Hashable]], width: float, bend: float
) -> Layered:
    """Place nodes of one width; edges over several levels bend between the nodes that they pass.

    Args:
        nodes: in topological order.
        edges: pairs of nodes, each from an earlier to a later one.
        width, bend: room that a node, or an edge that passes a level, takes from side to side.

    Source: K. Sugiyama, S. Tagawa, M. Toda (1981): longest-path levels, dummy nodes, barycentres.
    """
    level: dict[Hashable, int] = dict.fromkeys(nodes, 0)
    rank = {node: i for i, node in enumerate(nodes)}
    for a, b in sorted(edges, key=lambda edge: rank[edge[0]]):
        level[b] = max(level[b], level[a] + 1)
    routes = []
    for number, (a, b) in enumerate(edges):
        bends = [("bend", number, i) for i in range(level[a] + 1, level[b])]
        level.update((node, node[2]) for node in bends)
        routes.append([a, *bends, b])
    neighbours = defaultdict(list)
    for route in routes:
        for a, b in pairwise(route):
            neighbours[a].append(b)
            neighbours[b].append(a)
    rows: list[list[Hashable]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for node in level:
        rows[level[node]].append(node)
    room = {node: width if node in rank else bend for node in level}
    return Layered(_placed(rows, neighbours, level, room), level, routes)


def _placed(
    rows: list[list[Hashable]],
    neighbours: dict[Hashable, list[Hashable]],
    level: dict[Hashable, int],
    room: dict[Hashable, float],
) -> dict[Hashable, float]:
    """Middles, by sweeps down and up: each node under the mean of its neighbours, none too near."""
    x: dict[Hashable, float] = {}
    for row in rows:
        _spread(row, dict.fromkeys(row, 0.0), room, x)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wanted = {}
            for node in row:
                near = [n for n in neighbours[node] if (level[n] < level[node]) == down]
                wanted[node] = sum(x[n] for n in near) / len(near) if near else x[node]
            row.sort(key=lambda node: wanted[node])
            _spread(row, wanted, room, x)
    left = min((x[node] - room[node] / 2 for node in x), default=0.0)
    return {node: at - left for node, at in x.items()}


def _spread(
    row: list[Hashable],
    wanted: dict[Hashable, float],
    room: dict[Hashable, float],
    x: dict[Hashable, float],
) -> None:
    """Place a row in its order, as near to where its nodes want to be as their room allows."""
    at = float("-inf")
    for i, node in enumerate(row):
        gap = (room[row[i - 1]] + room[node]) / 2 if i else 0.0
        at = max(wanted[node], at + gap)
        x[node] = at
    shift = sum(wanted[node] - x[node] for node in row) / len(row)
    for node in row:
        x[node] += shift
