"""One traced forward: which operations ran, on which tensors, and which module call made them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from fastconv.capture.batch import first_tensor, map_tensors, picture, single_tensor, tensors_in
from fastconv.capture.network import Network, draw_random_numbers, explained, random_states
from fastconv.errors import InputError

UNTAGGED = ("hardswish", "_prelu_kernel", "leaky_relu", "log_sigmoid_forward")  # but pointwise


@dataclass(eq=False)
class Op:
    """One executed operation; arguments by the names of its schema, defaults filled in."""

    func: torch._ops.OpOverload
    name: str  # "relu_" for aten::relu_.default; others keep their namespace
    arguments: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    written: list[Tensor]  # the inputs that it changes in place

    @property
    def plain_name(self) -> str:
        """The name of the operation, in place or not."""
        return self.name.rstrip("_")

    @property
    def pointwise(self) -> bool:
        """Whether a value of the output sees the inputs at its own position alone.

        Not every operation that does has torch's tag, or not in place, or not in every version.
        """
        plain = getattr(torch.ops.aten, self.plain_name, None)
        forms = self.func, getattr(plain, self.func._overloadname, None)
        tagged = any(form is not None and torch.Tag.pointwise in form.tags for form in forms)
        return tagged or self.plain_name in UNTAGGED


@dataclass(eq=False)
class Call:
    """One call of a module: what went in, what came out, and the operations in between.

    Or, with `function`, a convolution that a module computed without a convolution module.
    """

    module: nn.Module
    path: str  # "" for the model itself
    index: int  # 0 for the first call of the module, or of its function, in one forward
    inputs: list[Tensor]
    output: Any
    first_op: int
    end_op: int
    function: str | None = None  # "conv2d", "conv_transpose1d" ...

    @property
    def name(self) -> str:
        """Path of the module ("relu", "relu#1"), or owner and function ("block.conv2d#0")."""
        if self.function:
            return ".".join(filter(None, (self.path, f"{self.function}#{self.index}")))
        path = self.path or type(self.module).__name__
        return f"{path}#{self.index}" if self.index else path

    @property
    def is_conv(self) -> bool:
        return self.function is not None or isinstance(self.module, _ConvNd)

    @property
    def tensor(self) -> Tensor | None:
        """The output, where it is one tensor."""
        return single_tensor(self.output)


@dataclass
class Trace:
    """Operations and finished module calls, in order. Holds every tensor, so ids are unique."""

    batch: Any  # what the model was called with
    ops: list[Op] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    @property
    def example(self) -> Tensor:
        """The picture that boxes refer to."""
        return first_tensor(self.batch)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Spatial size of the picture."""
        return tuple(picture(self.batch).shape[2:])

    def readers(self, tensor: Tensor, start: int) -> list[int]:
        """Indices of the ops from `start` on that read the present value of a tensor."""
        found = []
        for i in range(start, len(self.ops)):
            op = self.ops[i]
            if any(t is tensor for t in op.inputs):
                found.append(i)
                if any(t is tensor for t in op.written):
                    break
        return found

    def signature(self) -> str:
        """Hash of the operations that depend on the input, with their arguments.

        Tensors enter by order of appearance, dtype and shape. What the forward makes of nothing or
        of weights is left out: a model may keep that from an earlier forward.
        """
        numbers: dict[int, int] = {}

        def describe(value: object) -> str:
            if isinstance(value, Tensor):
                number = numbers.setdefault(id(value), len(numbers))
                return f"t{number}:{value.dtype}{list(value.shape)}"
            if isinstance(value, (list, tuple)):
                return f"[{','.join(map(describe, value))}]"
            if isinstance(value, (torch.device, torch.Generator)):
                return type(value).__name__  # shards of a run may sit on several devices
            return repr(value)

        digest = hashlib.sha256()
        moved = {t.untyped_storage()._cdata for t in tensors_in(self.batch)}
        for op in self.ops:
            if not any(t.untyped_storage()._cdata in moved for t in op.inputs):
                continue
            moved |= {t.untyped_storage()._cdata for t in (*op.outputs, *op.written)}
            arguments = [f"{key}={describe(value)}" for key, value in op.arguments.items()]
            digest.update(f"{op.func}({', '.join(arguments)}) -> {describe(op.outputs)}\n".encode())
        return digest.hexdigest()


CONVOLUTION_OPS = ("convolution", "_convolution")


def function_of(weight: Tensor, *, transposed: bool) -> str:
    """Name of the function of torch that calls the operation `convolution`."""
    return f"conv{'_transpose' if transposed else ''}{weight.ndim - 2}d"


class OpMode(TorchDispatchMode):
    """Hands every operation to `run(func, args, kwargs)`, split where torch has it of others.

    `linear` is kept whole for its layout.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; else the first operation would import torch._dynamo, slowly."""
        return False

    def run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        composite = torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        )
        if composite and func is not torch.ops.aten.linear.default:
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        return self.run(func, args, kwargs)


class _Recorder(OpMode):
    """Records operations, and keeps what parameters and buffers hold before they are written to."""

    def __init__(self, trace: Trace, network: Network) -> None:
        super().__init__()
        self.trace, self.network = trace, network
        known = [state for state, _ in network.written]
        self.state = {
            t.untyped_storage()._cdata: t
            for t in (*network.module.parameters(), *network.module.buffers())
            if not any(t is one for one in known)
        }

    def run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        op = _record(func, args, kwargs)
        for tensor in op.written:
            state = self.state.pop(tensor.untyped_storage()._cdata, None)
            if state is not None:
                self.network.written.append((state, state.detach().clone()))
        output = func(*args, **kwargs)
        op.outputs = tensors_in(output)
        self.trace.ops.append(op)
        return output


def _record(func: Any, args: tuple, kwargs: dict[str, Any]) -> Op:
    arguments = {}
    written = []
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
        arguments[argument.name] = value
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += tensors_in(value)
    name = func._schema.name.removeprefix("aten::")
    inputs = [t for value in arguments.values() for t in tensors_in(value)]
    return Op(func, name, arguments, inputs, [], written)


def trace_forward(network: Network, batch: Any) -> Trace:
    """Run the model once in eval mode and record it; the model is left as it was found.

    Raises:
        InputError: the model has lazy modules, does not take the input, or is random.
    """
    state = (*network.module.parameters(), *network.module.buffers())
    if any(nn.parameter.is_lazy(t) for t in state):
        raise InputError("the model has lazy modules without a shape yet: run it once on a batch")
    with network.running():
        before = random_states()
        trace = _trace(network, batch)
        drawn = random_states() != before
    if drawn:
        with network.running():
            draw_random_numbers()
            again = _trace(network, batch)
        if not _agree(trace, again):
            raise InputError(
                "the model is random in eval mode (a functional dropout?): two forwards of the "
                "same input differ, so that no result could be resumed or verified; pass "
                "training=self.training to it, or switch it off"
            )
    return trace


def _trace(network: Network, batch: Any) -> Trace:
    trace = Trace(
        map_tensors(batch, lambda t: t.detach().clone())
    )  # the model may write to its input
    names = network.names()
    counts = dict.fromkeys(names, 0)
    open_calls: list[tuple[nn.Module, int, list[Tensor]]] = []

    def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        open_calls.append((module, len(trace.ops), tensors_in([args, kwargs])))

    def leave(module: nn.Module, _: tuple, output: object) -> None:
        while open_calls[-1][0] is not module:  # calls inside that raised, and were caught
            open_calls.pop()
        first, inputs = open_calls.pop()[1:]
        index = counts[module]
        counts[module] += 1
        call = Call(module, names[module], index, inputs, output, first, len(trace.ops))
        trace.calls.append(call)

    handles = []
    try:
        for module in names:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
        recorder = _Recorder(trace, network)
        with explained(trace.example), torch._C._AutoDispatchBelowAutograd(), recorder:
            network.call(trace.batch)
    finally:
        for handle in handles:
            handle.remove()
    _add_functions(trace, network.module)
    return trace


def _add_functions(trace: Trace, model: nn.Module) -> None:
    """Add a call for every convolution that no convolution module computed."""
    counts: Counter[tuple[nn.Module, str]] = Counter()
    found = []
    for i, op in enumerate(trace.ops):
        if op.name not in CONVOLUTION_OPS:
            continue
        around = [c for c in trace.calls if c.first_op <= i < c.end_op]
        owner = min(around, key=lambda c: c.end_op - c.first_op, default=None)
        module, path = (owner.module, owner.path) if owner else (model, "")
        if isinstance(module, _ConvNd):
            continue
        name = function_of(op.arguments["weight"], transposed=op.arguments["transposed"])
        index = counts[module, name]
        counts[module, name] += 1
        found.append(Call(module, path, index, op.inputs[:1], op.outputs[0], i, i + 1, name))
    trace.calls = sorted([*found, *trace.calls], key=lambda call: call.end_op)


def _agree(a: Trace, b: Trace) -> bool:
    """Whether two forwards made the same calls, with the same values."""
    values = ([t for call in trace.calls for t in tensors_in(call.output)] for trace in (a, b))
    first, second = values
    return len(first) == len(second) and all(
        x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())
        for x, y in zip(first, second, strict=True)
    )
