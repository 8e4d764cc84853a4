"""One probe forward: which operations ran, on which tensors, and which module call made them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastconv.errors import InputError


@dataclass(eq=False)
class Op:
    """One executed operation; arguments by the names of its schema, defaults filled in."""

    func: torch._ops.OpOverload
    name: str  # "relu_" for aten::relu_.default; others keep their namespace
    arguments: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    written: list[Tensor]  # the inputs that it changes in place


@dataclass(eq=False)
class Call:
    """One call of a module: what went in, what came out, and the operations in between."""

    module: nn.Module
    path: str
    index: int  # 0 for the first call of the module in one forward
    inputs: list[Tensor]
    output: Any
    first_op: int
    end_op: int

    @property
    def name(self) -> str:
        return f"{self.path}#{self.index}" if self.index else self.path

    @property
    def tensor(self) -> Tensor | None:
        """The output, where it is one tensor."""
        return single_tensor(self.output)


@dataclass
class Trace:
    """Operations and finished module calls, in order. Holds every tensor, so ids are unique."""

    example: Tensor
    ops: list[Op] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

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
        """Hash of the operations with their arguments; tensors by order of appearance and shape."""
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
        for op in self.ops:
            arguments = [f"{key}={describe(value)}" for key, value in op.arguments.items()]
            digest.update(f"{op.func}({', '.join(arguments)}) -> {describe(op.outputs)}\n".encode())
        return digest.hexdigest()


def single_tensor(output: object) -> Tensor | None:
    """A tensor, or the only tensor in a tuple, list or dict."""
    found = tensors_in(output)
    return found[0] if len(found) == 1 else None


def tensors_in(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_in(v)]
    return []


class _Recorder(TorchDispatchMode):
    """Records operations, splitting composite ones; `linear` is kept whole for its layout."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        composite = torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        )
        if composite and func is not torch.ops.aten.linear.default:
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        output = func(*args, **kwargs)
        self.trace.ops.append(_record(func, args, kwargs, output))
        return output


def _record(func: Any, args: tuple, kwargs: dict[str, Any], output: object) -> Op:
    arguments = {}
    written = []
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
        arguments[argument.name] = value
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += tensors_in(value)
    name = func._schema.name.removeprefix("aten::")
    inputs = [t for value in arguments.values() for t in tensors_in(value)]
    return Op(func, name, arguments, inputs, tensors_in(output), written)


def module_names(model: nn.Module) -> dict[nn.Module, str]:
    """Every module that can be hooked, with its path; the model itself by its class name."""
    return {
        module: path or type(model).__name__
        for path, module in model.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)
    }


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode, each set back to its own mode at the end."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def explained(inputs: Tensor) -> Iterator[None]:
    """Turn torch's error about channels or rank into one about the input; pass on all others."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        channels = re.search(r"to have (\d+) channels, but got (\d+) channels", text)
        got = list(inputs.shape)
        if channels and inputs.ndim > 1 and int(channels[2]) == inputs.shape[1]:
            raise InputError(
                f"a convolution of the model expects {channels[1]} channels, got {channels[2]}: "
                f"the input is {got}, [N, C, *spatial] is read"
            ) from error
        if re.search(r"Expected \d+D \(unbatched\) or \d+D \(batched\) input", text):
            raise InputError(
                f"a convolution of the model expects another number of dimensions than the "
                f"input {got} leads to: {text.splitlines()[0]}"
            ) from error
        raise


def trace_forward(model: nn.Module, example: Tensor) -> Trace:
    """Run the model once in eval mode and record it; the model is left as it was found."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"the model must be an nn.Module that is not compiled to TorchScript, got a "
            f"{type(model).__name__}"
        )
    names = module_names(model)
    if any(nn.parameter.is_lazy(p) for p in (*model.parameters(), *model.buffers())):
        raise InputError("the model has lazy modules without a shape yet: run it once on a batch")
    trace = Trace(example.detach().clone())  # the model may write to its input
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
        with evaluation(model), torch.inference_mode(), explained(example), _Recorder(trace):
            model(trace.example)
    finally:
        for handle in handles:
            handle.remove()
    return trace


def graph_signature(model: nn.Module, example: Tensor) -> str:
    """Hash of what the model executes on `example`: operations, shapes, dtypes, other arguments.

    Two models of the same signature compute the same function of their parameters and input;
    the values of the parameters do not enter. The shape of `example` does.
    """
    return trace_forward(model, example).signature()
