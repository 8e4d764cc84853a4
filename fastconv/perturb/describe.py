"""What identifies a change, as plain values, and a perturbation made again from them."""

from __future__ import annotations

import dis
import functools
import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor

from fastconv.perturb import adversarial, appearance, placement, sequence, structure
from fastconv.perturb.perturbation import Perturbation, plain

_FACTORIES: dict[str, Callable[..., Perturbation]] = {
    factory.__name__: factory
    for factory in (
        *(placement.rotate, placement.scale, placement.translate, placement.flip),
        *(appearance.noise, appearance.blur, appearance.brightness, appearance.contrast),
        *(appearance.hue, appearance.jpeg, appearance.frequency),
        *(structure.occlude, structure.shuffle_patches, structure.silhouette),
        *(sequence.time_shift, sequence.stretch, sequence.drop_frames, sequence.shuffle_frames),
        *(adversarial.fgsm, adversarial.pgd),
    )
}


def describe(change: Callable[..., Tensor]) -> dict[str, Any]:
    """Plain values that identify a perturbation, or any callable that is used as one.

    A callable describes itself by a method `describe`; else it is known by its module and name,
    the arguments of a `functools.partial` and the numbers and texts that a function encloses
    included. Code is looked into of a `lambda` alone, which has no name: give another changed
    function another name.
    """
    own = getattr(change, "describe", None)
    if callable(own):
        return dict(own())
    if isinstance(change, functools.partial):
        given = {f"argument_{i}": plain(v) for i, v in enumerate(change.args)}
        given |= {k: plain(v) for k, v in change.keywords.items()}
        return describe(change.func) | given
    named = change if hasattr(change, "__qualname__") else type(change)
    found = {"name": f"{named.__module__}.{named.__qualname__}"}
    return _enclosed(change) | found if isinstance(change, FunctionType) else found


def _enclosed(function: FunctionType) -> dict[str, Any]:
    """Numbers and texts that a function encloses and does not write to; of a lambda its code."""
    code = function.__code__
    written = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_DEREF"}
    found = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # a cell that is empty yet
            value = cell.cell_contents
            if name not in written and isinstance(value, int | float | str):
                found[name] = value
    if function.__name__ == "<lambda>":
        found["code"] = hashlib.sha256(repr(_instructions(code)).encode()).hexdigest()
    return found


def _instructions(code: CodeType) -> list[Any]:
    """What a code does, wherever it is written."""
    constants = [_instructions(c) if isinstance(c, CodeType) else c for c in code.co_consts]
    return [code.co_code, code.co_names, constants]


def from_description(description: Mapping[str, Any]) -> Perturbation | None:
    """The perturbation that describes itself so; None where that does not suffice to make it.

    That is so for other callables, and for those that hold an array.
    """
    given = {key: value for key, value in description.items() if key != "name"}
    factory = _FACTORIES.get(str(description.get("name")))
    if factory is None or any(isinstance(value, dict) for value in given.values()):
        return None
    try:
        made = factory(**given)
    except (TypeError, ValueError):
        return None
    return made if made.describe() == dict(description) else None
