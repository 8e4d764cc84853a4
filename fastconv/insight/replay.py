"""A recorded forward of which only what lies behind some layers is run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastconv.capture import CaptureTarget, Network
from fastconv.capture.batch import map_tensors, tensors_in
from fastconv.capture.trace import Call, Trace, trace_forward

Change = Callable[[Tensor], None]  # writes to the output of a layer, [N, C, *spatial]


class KeptOutput(Network):
    """A model that keeps what its last call returned: of `forward`, where one is given."""

    output: Any = None

    def call(self, batch: Any) -> Any:
        self.output = super().call(batch)
        return self.output


class Recording:
    """One forward of a model on a batch, kept operation by operation with all its tensors.

    `replay` runs those operations again that depend on a changed layer, and takes the results of
    all others as they were recorded. Where the model writes in place to something that such an
    operation reads from outside, the recorded value is gone, and the whole model runs again.
    Holds the activations of the batch, as training does.
    """

    def __init__(self, network: KeptOutput, targets: Sequence[CaptureTarget], inputs: Any):
        self._network, self._targets, self._inputs = network, targets, inputs
        with _copied_outputs(targets):  # what follows in place changes a copy
            self._trace = trace_forward(network, inputs)
        self._calls = {t.info.name: _call(self._trace, t) for t in targets}
        self._last_write: dict[int, int] = {}  # storage: the last operation that writes to it
        for i, op in enumerate(self._trace.ops):
            for tensor in op.written:
                self._last_write[_storage(tensor)] = i
        self.output = network.output
        made = {id(t) for op in self._trace.ops for t in (*op.inputs, *op.outputs)}
        parts = tensors_in(self.output)
        self._followed = bool(parts) and all(id(t) in made for t in parts)
        self.replayed = self.rerun = 0  # how often each happened

    def replay(self, changes: Mapping[str, Change]) -> Any:
        """The output of the model with the outputs of some layers changed."""
        found = self._replay(changes)
        if found is None:
            self.rerun += 1
            return rerun(self._network, self._targets, self._inputs, changes)
        self.replayed += 1
        return found

    def _replay(self, changes: Mapping[str, Change]) -> Any:
        """The output, or None where something recorded that is needed was overwritten later.

        None as well for an output that is no tensor, tuple, list or dict.
        """
        if not self._followed:
            return None
        values: dict[int, Tensor] = {}  # by id of the recorded tensor
        starts = {self._calls[name].end_op - 1: name for name in changes}
        with torch.no_grad():
            for i in range(min(starts), len(self._trace.ops)):
                op = self._trace.ops[i]
                if i in starts:  # the copy of the layer's output
                    source = op.inputs[0]
                    changed = values.get(id(source), source).clone()
                    changes[starts[i]](changed)
                    values[id(op.outputs[0])] = changed
                    continue
                if not any(id(t) in values for t in op.inputs):
                    continue
                for tensor in op.inputs:
                    if id(tensor) not in values and self._last_write.get(_storage(tensor), -1) >= i:
                        return None
                arguments = {k: _substituted(v, values) for k, v in op.arguments.items()}
                made = _tensors(op.func(**arguments))
                values.update({id(t): v for t, v in zip(op.outputs, made, strict=True)})
        return map_tensors(self.output, lambda t: values.get(id(t), t))


def rerun(
    network: Network,
    targets: Sequence[CaptureTarget],
    inputs: Any,
    changes: Mapping[str, Change],
) -> Any:
    """The output of the whole model, run again with the outputs of some layers changed."""
    by_name = {t.info.name: t for t in targets}
    hooks = [(by_name[name], change) for name, change in changes.items()]

    def changed(change: Change, output: Tensor) -> Tensor:
        output = output.clone()
        change(output)
        return output

    with _Hooks(hooks, changed), network.running():
        return network.call(map_tensors(inputs, torch.clone))


class _Hooks:
    """Replaces the output of chosen calls inside a `with` block."""

    def __init__(
        self,
        chosen: Sequence[tuple[CaptureTarget, Any]],
        replace: Callable[[Any, Tensor], Tensor],
    ):
        self._chosen, self._replace = chosen, replace
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        counts = {target.module: 0 for target, _ in self._chosen}

        def leave(module: nn.Module, _: tuple, output: Any) -> Any:
            index = counts[module]
            counts[module] = index + 1
            for target, what in self._chosen:
                if target.module is module and target.index == index:
                    return self._replace(what, output)
            return None

        self._handles = [module.register_forward_hook(leave) for module in counts]

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()


def _copied_outputs(targets: Sequence[CaptureTarget]) -> _Hooks:
    return _Hooks([(target, None) for target in targets], lambda _, output: output.clone())


def _call(trace: Trace, target: CaptureTarget) -> Call:
    calls = (c for c in trace.calls if c.function is None and c.module is target.module)
    return next(call for call in calls if call.index == target.index)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _substituted(value: Any, values: Mapping[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return values.get(id(value), value)
    if isinstance(value, (list, tuple)):
        return type(value)(_substituted(v, values) for v in value)
    return value


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in _tensors(v)] if isinstance(value, (list, tuple)) else []
