"""Operations whose output sees, at each position, what the inputs see there."""

from __future__ import annotations

from fastconv.capture.receptive_field.field import Reach, combine, constant
from fastconv.capture.receptive_field.rules.rule import RULES, Context, rule


def pointwise(c: Context) -> Reach:
    parts = [(c.look(t), t.shape) for t in c.op.inputs]
    return combine(parts, c.out.shape) if parts else constant(c.out.ndim)


RULES.update(dict.fromkeys(("clone", "detach", "alias", "_to_copy", "lift_fresh"), pointwise))
RULES.update(dict.fromkeys(("expand", "where"), pointwise))


@rule("fill", "zero", "uniform", "normal")
def _constant(c: Context) -> Reach:
    return constant(c.out.ndim)


@rule("copy")
def _copy(c: Context) -> Reach:
    return combine([(c.look(c["src"]), c["src"].shape)], c.out.shape)
