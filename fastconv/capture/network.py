"""A model as it is called: eagerly, in eval mode, without gradients, and left as it was found."""

from __future__ import annotations

import inspect
import random
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastconv.errors import InputError

Forward = Callable[[nn.Module, Any], Any]
CONTAINERS = (list, dict, set, deque)


class Network:
    """A model, and the way to call it with a batch.

    Args:
        model: any module. What `torch.compile` made is taken apart: hooks and fused layers need the
            module itself, whose values are the same.
        forward: `forward(model, batch)` instead of `model(batch)`; a tuple or list of tensors is
            passed as arguments, a dict as keywords.
    """

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None:
        require_module(model)
        self.module: nn.Module = getattr(model, "_orig_mod", model)
        self._forward = forward
        self.written: list[tuple[Tensor, Tensor]] = []  # what its forward changes, and as it was

    def call(self, batch: Any) -> Any:
        """The output for a batch, in whatever mode the model is."""
        if self._forward is not None:
            return self._forward(self.module, batch)
        arguments, keywords = _arguments(batch)
        return self.module(*arguments, **keywords)

    def require_callable(self, batch: Any) -> None:
        """Say how to give a model its inputs, where it takes others than the batch has.

        Raises:
            InputError: arguments that are missing, or too many.
        """
        called = type(self.module).__call__ is nn.Module.__call__
        if self._forward is not None or not called or self.module._forward_pre_hooks:
            return  # what `forward` gets is not the batch
        arguments, keywords = _arguments(batch)
        try:
            signature = inspect.signature(self.module.forward)
        except (TypeError, ValueError):  # it does not tell
            return
        try:
            signature.bind(*arguments, **keywords)
        except TypeError as error:
            given = f"{len(arguments)} tensors" if len(arguments) > 1 else "one tensor"
            given = f"a dict of {', '.join(keywords)}" if keywords else given
            raise InputError(
                f"forward{signature} of the model cannot be called with {given} ({error}): let "
                "a sample be ((a, b), label) or ({'a': ..., 'b': ...}, label), its arguments or "
                "keywords, or give forward=, a function of (model, batch)"
            ) from error

    def names(self) -> dict[nn.Module, str]:
        """Path of every module that can be hooked; "" for the model itself.

        A shared module goes by its first path. TorchScript takes no hooks.
        """
        found: dict[nn.Module, str] = {}
        for path, module in self.module.named_modules():
            if not isinstance(module, torch.jit.ScriptModule) and not _is_compiled(module):
                found[module] = plain_path(path)
        return found

    def aliases(self) -> dict[str, str]:
        """Further paths of shared modules, with the first one."""
        names = self.names()
        every = self.module.named_modules(remove_duplicate=False)
        return {
            plain_path(path): names[module]
            for path, module in every
            if module in names and names[module] != plain_path(path)
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Eval mode, no gradients, nothing compiled; afterwards all is as before.

        That is modes, attributes of modules and what lists and dicts among them hold, and random
        states; and the tensors that a first forward was seen to write to.
        """
        modules = list(self.module.modules())
        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:  # else nothing can be compiled
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(_same_random_state())
            stack.enter_context(_same_attributes(modules))
            stack.enter_context(evaluation(self.module))
            stack.enter_context(torch.inference_mode(mode=False))
            stack.enter_context(torch.no_grad())
            try:
                yield
            finally:
                for tensor, before in self.written:
                    tensor.copy_(before)


def require_module(model: Any) -> None:
    """Raise an InputError where a model is none."""
    if isinstance(model, nn.Module):
        return
    kind = type(model).__name__
    remedy = "call it, and give what it returns" if isinstance(model, type) else "build it first"
    if kind == "ExportedProgram":
        remedy = "give what its .module() returns"
    elif isinstance(model, Mapping):
        remedy = "build the model, and load these weights into it"
    name = f"class {model.__name__}" if isinstance(model, type) else kind
    raise InputError(f"the model must be an nn.Module, got a {name}; {remedy}")


def _arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, dict):
        return (), batch
    return (tuple(batch) if isinstance(batch, (list, tuple)) else (batch,)), {}


@contextmanager
def _same_attributes(modules: list[nn.Module]) -> Iterator[None]:
    """Attributes of the modules put back, and what containers among them hold."""
    attributes = [vars(m) for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    kept = [(now, now.copy()) for now in attributes]
    kept += [
        (value, value.copy())
        for now in attributes
        for name, value in now.items()
        if type(value) in CONTAINERS and not name.endswith("_hooks")
    ]
    try:
        yield
    finally:
        for now, before in kept:
            if not _holds_the_same(now, before):
                now.clear()
                (now.extend if isinstance(now, (list, deque)) else now.update)(before)


def _holds_the_same(now: Any, before: Any) -> bool:
    """Whether two containers hold the same objects in the same order."""
    if len(now) != len(before):
        return False
    if isinstance(now, dict) and not all(map(is_, now.values(), before.values())):
        return False
    return now == before if isinstance(now, set) else all(map(is_, now, before))


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules


def plain_path(path: str) -> str:
    """The path of a module without the wrappers of `torch.compile`."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode, each set back to its own mode at the end."""
    training = [module for module in model.modules() if getattr(module, "training", False)]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _same_random_state() -> Iterator[None]:
    """The random states of torch, numpy and Python put back at the end."""
    (host, *gpus), numbers, python = _torch_states(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(host)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        np.random.set_state(numbers)
        random.setstate(python)


def random_states() -> tuple[Any, ...]:
    """States of the generators of torch, numpy and Python, to compare: drawing changes them."""
    torch_states = [state.numpy().tobytes() for state in _torch_states()]
    return torch_states, _comparable(np.random.get_state(legacy=False)), random.getstate()


def _comparable(state: Any) -> Any:
    """The state of a generator of numpy with its arrays as bytes."""
    if isinstance(state, dict):
        return {name: _comparable(value) for name, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


def _torch_states() -> list[Tensor]:
    """Of the host, and of every GPU in use; none of these while a CUDA graph is captured."""
    gpus = torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing()
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if gpus else [])]


def draw_random_numbers() -> None:
    torch.rand(1), np.random.rand(), random.random()
    if torch.cuda.is_initialized():
        torch.rand(1, device="cuda")


@contextmanager
def explained(inputs: Tensor) -> Iterator[None]:
    """Turn errors of torch about the shape of the input into an InputError; pass on all others."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = _explanation(str(error), inputs.shape)
        if reason is None:
            raise
        raise InputError(reason) from error


def _explanation(text: str, shape: torch.Size) -> str | None:
    first = text.splitlines()[0] if text else ""
    got = f"the input {list(shape)}"
    channels = re.search(r"to have (\d+) channels, but got (\d+) channels", text)
    if channels and len(shape) > 1 and int(channels[2]) == shape[1]:
        return (
            f"a convolution of the model expects {channels[1]} channels, got {channels[2]}: "
            f"the input is {list(shape)}, [N, C, *spatial] is read"
        )
    if re.search(r"Expected \d+D \(unbatched\) or \d+D \(batched\) input", text):
        return (
            "a convolution of the model expects another number of dimensions than "
            f"{got} leads to: {first}"
        )
    if "Kernel size can't be greater than actual input size" in text:
        return f"{got} is too small for the model: {first}"
    if "Expected more than 1 value per channel when training" in text:
        return (
            "a norm of the model takes its moments from the batch, also in eval mode, which one "
            f"value a channel does not allow ({got}): use track_running_stats=True, or another "
            "batch size"
        )
    if "Guard failed" in text:
        return (
            f"the exported program does not take {got} ({first}): export it with dynamic_shapes, "
            "or choose its own batch size; the number of samples must be a multiple of it"
        )
    return None
