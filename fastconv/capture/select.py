"""Which module calls are meant by names, globs and types."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fastconv.capture.receptive_field import Reach
from fastconv.capture.trace import Call, Trace, module_names
from fastconv.errors import LayerError

Layers = str | type[nn.Module] | Iterable[str | type[nn.Module]] | None


def select_calls(
    model: nn.Module, trace: Trace, reaches: dict[Call, Reach], layers: Layers
) -> list[Call]:
    """The calls that `layers` names, in forward order, each with an output [N, C, *spatial].

    A name takes one call ("conv", "conv#1"); globs (on names and on module paths) and types take
    all calls that fit, and pass over outputs of other forms. None takes every convolution, and
    warns of those that it leaves out because of their form.
    """
    paths = list(module_names(model).values())
    wanted = [_ConvNd] if layers is None else _as_list(layers)
    chosen: set[Call] = set()
    misfits: list[str] = []
    for item in wanted:
        named = isinstance(item, str) and not any(c in item for c in "*?[")
        for call in _calls_of(item, trace, paths):
            problem = _misfit(call, reaches, len(trace.example))
            if problem and named:
                raise LayerError(problem)
            if problem and layers is None:
                warnings.warn(f"left out: {problem}", stacklevel=3)
            if problem:
                misfits.append(problem)
            else:
                chosen.add(call)
    if not chosen:
        raise LayerError(_nothing(layers, paths, misfits, trace))
    return [call for call in trace.calls if call in chosen]


def _as_list(layers: Layers) -> list[str | type[nn.Module]]:
    items: list[Any] = list(layers) if isinstance(layers, (list, tuple, set)) else [layers]
    for item in items:
        if not isinstance(item, str) and not (
            isinstance(item, type) and issubclass(item, nn.Module)
        ):
            got = f"a {type(item).__name__}" if isinstance(item, nn.Module) else repr(item)
            raise LayerError(f"layers takes names, globs and nn.Module classes, got {got}")
    if not items:
        raise LayerError("layers is empty: give names, globs or module types, or None for all")
    return items


def _calls_of(item: str | type, trace: Trace, paths: Sequence[str]) -> list[Call]:
    if isinstance(item, type):
        return [call for call in trace.calls if isinstance(call.module, item)]
    calls = [call for call in trace.calls if call.name == item]
    if calls:
        return calls
    if any(c in item for c in "*?["):
        calls = [c for c in trace.calls if fnmatchcase(c.name, item) or fnmatchcase(c.path, item)]
        if calls or any(fnmatchcase(path, item) for path in paths):
            return calls
    elif item in paths:
        raise LayerError(f"layer {item!r} is in the model, but its forward never calls it")
    names = [call.name for call in trace.calls]
    near = difflib.get_close_matches(item, dict.fromkeys((*names, *paths)), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {_some(names)}"
    raise LayerError(f"no layer matches {item!r}: {hint}")


def _misfit(call: Call, reaches: dict[Call, Reach], batch: int) -> str | None:
    """Why an output is not [N, C, *spatial], or None."""
    asked = f"layer {call.name!r} does not return one tensor [N, C, *spatial]: got "
    tensor = call.tensor
    if tensor is None:
        return asked + _form(call.output)
    if not tensor.is_floating_point():
        return asked + f"{tensor.dtype} {list(tensor.shape)}"
    if not 2 <= tensor.ndim <= 5 or tensor.shape[0] != batch:
        return asked + f"{list(tensor.shape)} for {batch} samples"
    axis = reaches[call].axes[1]
    if axis is not None:
        return asked + f"{list(tensor.shape)} with the channels elsewhere"
    return None


def _form(output: object) -> str:
    if isinstance(output, Tensor):
        return str(list(output.shape))
    if isinstance(output, (list, tuple)):
        return f"{type(output).__name__}({', '.join(map(_form, output))})"
    if isinstance(output, dict):
        return f"dict({', '.join(f'{key}={_form(value)}' for key, value in output.items())})"
    return type(output).__name__


def _nothing(layers: Layers, paths: Sequence[str], misfits: Sequence[str], trace: Trace) -> str:
    if misfits:
        return misfits[0]
    if layers is None:
        called = [call.name for call in trace.calls if call.tensor is not None]
        return (
            "the model calls no convolution module; name other layers with an output "
            f"[N, C, *spatial], such as {_some(called)}"
        )
    return f"layers={layers!r} fits no module that the forward calls; the model has {_some(paths)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "") if names else "none"
