"""A rule: from an operation and what its inputs see to what its outputs see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fastconv.capture.receptive_field.field import Reach, constant, settle
from fastconv.capture.trace import Op


@dataclass(frozen=True)
class Context:
    """An operation and the receptive fields of its inputs, as a rule reads them."""

    op: Op
    look: Callable[[Tensor], Reach]  # what an input sees
    readers: Callable[[Tensor], list[Op]]  # operations that read an output of this one
    sizes: tuple[int, ...]  # spatial size of the input of the model

    def __getitem__(self, name: str) -> Any:
        return self.op.arguments[name]

    @property
    def first(self) -> Tensor:
        return self.op.inputs[0]

    @property
    def out(self) -> Tensor:
        return self.op.outputs[0]

    def seen(self) -> Reach:
        """The first input, which sees everything that the other inputs see, if anything."""
        others = [s for t in self.op.inputs[1:] for s in self.look(t).sources]
        reach = self.look(self.first)
        return settle(reach, reach.axes, others)


Rule = Callable[[Context], "Reach | list[Reach]"]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def spread(values: int | Sequence[int], rank: int) -> list[int]:
    values = [values] if isinstance(values, int) else list(values)
    return values * rank if len(values) == 1 else values


def unknown(c: Context, out: Tensor) -> Reach:
    """What an output of an operation without a rule sees: everything, if any input does."""
    sources = {s for t in c.op.inputs for s in c.look(t).sources}
    reach = constant(out.ndim)
    return replace(reach, whole=frozenset(range(len(c.sizes)))) if sources else reach
