"""Which module calls are meant by names, globs and types."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fastconv.capture.network import Network
from fastconv.capture.receptive_field import Reach
from fastconv.capture.trace import Call, Trace
from fastconv.errors import LayerError

Layers = str | type[nn.Module] | Iterable[str | type[nn.Module]] | None


def select_calls(
    network: Network, trace: Trace, reaches: dict[Call, Reach], layers: Layers
) -> dict[Call, str]:
    """The calls that `layers` names, in forward order, each with an output [N, C, *spatial].

    A name takes one call ("conv", "conv#1"); globs (on names and on module paths) and types take
    all calls that fit, and pass over outputs of other forms. None takes every convolution, and
    warns of those that it leaves out because of their form. Each call comes with its name: its
    own, or where it was asked for by another path of a shared module, that one.
    """
    modules = network.names().items()
    paths = [path or type(module).__name__ for module, path in modules]
    wanted: list[Any] = [_ConvNd] if layers is None else _as_list(layers)
    others = network.aliases()
    aliases = {i: name for i in wanted if (name := _canonical(i, others)) is not None}
    chosen: dict[Call, str] = {}
    misfits: list[str] = []
    for item in wanted:
        named = isinstance(item, str) and not any(c in item for c in "*?[")
        for call in _calls_of(aliases.get(item, item), trace, paths):
            problem = _misfit(call, reaches, len(trace.example))
            if problem and named:
                raise LayerError(problem)
            if problem and layers is None:
                warnings.warn(f"left out: {problem}", stacklevel=3)
            if problem:
                misfits.append(problem)
            elif call not in chosen or item not in aliases:
                chosen[call] = item if item in aliases else call.name
    if not chosen:
        raise LayerError(_nothing(layers, paths, misfits, trace))
    return {call: chosen[call] for call in trace.calls if call in chosen}


def _canonical(item: object, others: dict[str, str]) -> str | None:
    """The name of a call by the first path of its module, where `item` has another one."""
    if not isinstance(item, str):
        return None
    path, _, index = item.partition("#")
    first = others.get(path)
    return None if first is None else f"{first}#{index}" if index else first


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
        functions = item is _ConvNd
        return [
            call
            for call in trace.calls
            if (functions if call.function else isinstance(call.module, item))
        ]
    calls = [call for call in trace.calls if call.name == item]
    if calls:
        return calls
    if any(c in item for c in "*?["):
        calls = [
            c
            for c in trace.calls
            if fnmatchcase(c.name, item) or (fnmatchcase(c.path, item) and not c.function)
        ]
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
    if tensor.is_complex():
        return (
            f"layer {call.name!r} returns complex values, which have no order and are not "
            "measured; name a layer that returns their magnitude"
        )
    if not tensor.is_floating_point():
        return asked + f"{tensor.dtype} {list(tensor.shape)}"
    instances = instances_a_sample(tensor, batch)
    if instances == 0 or not 2 <= tensor.ndim + (instances > 1) <= 5:
        return asked + f"{list(tensor.shape)} for {batch} samples"
    if instances > 1 and not _by_sample(tensor, batch):
        return asked + f"{list(tensor.shape)}, the rows of a sample not next to each other"
    if tensor.ndim > 2 and reaches[call].axes[1] is not None:
        return asked + f"{list(tensor.shape)} with the channels elsewhere"
    return None


def instances_a_sample(tensor: Tensor, batch: int) -> int:
    """Rows of a tensor for each sample: 1, m where frames or crops are folded in, 0 for others."""
    return tensor.shape[0] // batch if tensor.shape[0] % batch == 0 else 0


def _by_sample(tensor: Tensor, batch: int) -> bool:
    """Whether the rows of a sample follow each other; the samples of the probe are equal."""
    first, *others = tensor.detach().float().chunk(batch)
    return all(torch.allclose(first, o, rtol=1e-3, atol=1e-5, equal_nan=True) for o in others)


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
