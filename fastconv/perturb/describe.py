"""What identifies a change, as plain values, and a perturbation made again from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
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
    the arguments of a `functools.partial` included. Code is not looked into: give a changed
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
    return {"name": f"{named.__module__}.{named.__qualname__}"}


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
