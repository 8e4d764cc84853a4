"""Receptive fields over the executed graph: what each module output sees of the input."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor

from fastconv.capture.receptive_field.field import Axis, Reach, constant, settle
from fastconv.capture.receptive_field.rules import RULES, Context, pointwise, unknown
from fastconv.capture.trace import Call, Op, Trace


class _Propagation:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.sizes = trace.sizes
        self.reach: dict[int, Reach] = {}
        self.aliases: dict[int, dict[int, Tensor]] = defaultdict(dict)  # by storage
        axes = [Axis.of_input(i, size) for i, size in enumerate(self.sizes)]
        channels = trace.example.ndim - 1 - len(axes)  # none of a waveform [N, samples]
        self.store(trace.example, Reach((None, *[None] * channels, *axes)))

    def look(self, tensor: Tensor) -> Reach:
        return self.reach.get(id(tensor)) or constant(tensor.ndim)

    def store(self, tensor: Tensor, reach: Reach) -> None:
        self.reach[id(tensor)] = reach
        self.aliases[tensor.untyped_storage()._cdata][id(tensor)] = tensor

    def step(self, index: int, op: Op) -> None:
        for tensor in op.inputs:
            self.aliases[tensor.untyped_storage()._cdata][id(tensor)] = tensor
        name = op.plain_name
        context = Context(
            op,
            self.look,
            lambda t: [self.trace.ops[i] for i in self.trace.readers(t, index + 1)],
            self.sizes,
        )
        active = {id(t) for t in op.inputs if not self.look(t).constant}
        moves = not op.pointwise
        found: list[Reach] | Reach
        if not active or name.startswith("new_") or name.endswith("_like"):
            found = [constant(t.ndim) for t in op.outputs]
        elif name not in RULES and moves:
            found = [unknown(context, t) for t in op.outputs]
        else:
            found = RULES.get(name, pointwise)(context)
        if isinstance(found, Reach):
            found = [found] * len(op.outputs)
        for tensor, reach in zip(op.outputs, found, strict=True):
            if len(reach.axes) != tensor.ndim:  # moments, indices: beside the main output
                reach = settle(reach, [None] * tensor.ndim)
            self.store(tensor, reach)
        for tensor in op.written:
            if not any(tensor is t for t in op.outputs):
                self.store(tensor, unknown(context, tensor))
            if moves or active - {id(tensor)}:
                self.spoil_views(tensor)

    def spoil_views(self, written: Tensor) -> None:
        """Other views of the written memory see what was written, at positions unknown."""
        sources = self.look(written).sources
        for other in self.aliases[written.untyped_storage()._cdata].values():
            if other is not written:
                before = self.look(other)
                self.reach[id(other)] = settle(before, before.axes, sources)


def propagate(trace: Trace) -> dict[Call, Reach]:
    """Receptive fields of the output tensor of every call, at the moment when it returns."""
    state = _Propagation(trace)
    reaches, done = {}, 0
    for call in trace.calls:
        while done < call.end_op:
            state.step(done, trace.ops[done])
            done += 1
        if call.tensor is not None:
            reaches[call] = state.look(call.tensor)
    return reaches
