"""The same samples changed: what `conditions` does to every batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastconv.errors import InputError
from fastconv.perturb import Perturbation, describe, from_description

Change = Callable[..., Tensor]


@dataclass(frozen=True)
class Condition:
    """A change of the input, by the name that the file knows it by."""

    name: str
    change: Change

    def apply(
        self,
        inputs: Tensor,
        samples: Tensor,
        model: Callable[[Tensor], Tensor],
        labels: Tensor | None,
    ) -> Tensor:
        """The inputs [n, C, *spatial] of the samples [n], changed; what was given stays as it is.

        Raises:
            InputError: the change fails, gives another shape or dtype, or NaN or infinity.
        """
        given: dict[str, Any] = {}
        if getattr(self.change, "needs_model", False):
            given = {"model": model, "labels": labels}
        try:
            own = inputs if isinstance(self.change, Perturbation) else inputs.clone()
            changed = self.change(own, samples, **given)
        except InputError as error:
            raise InputError(f"condition {self.name!r}: {error}") from error
        if not isinstance(changed, Tensor):
            kind = type(changed).__name__
            raise InputError(f"condition {self.name!r} gives a {kind}; a batch of inputs is needed")
        if changed.shape != inputs.shape or changed.dtype != inputs.dtype:
            raise InputError(
                f"condition {self.name!r} makes {changed.dtype} {list(changed.shape)} of "
                f"{inputs.dtype} {list(inputs.shape)}; shape and dtype must stay"
            )
        if not changed.sum().isfinite():  # else nothing can be wrong
            broken, given_broken = (~x.isfinite().flatten(1).all(1) for x in (changed, inputs))
            wrong = broken & ~given_broken
            if wrong.any():
                row = int(wrong.nonzero()[0])
                raise InputError(
                    f"condition {self.name!r} makes NaN or infinity of sample {int(samples[row])}; "
                    "clip what it gives, or leave the condition out"
                )
        return changed

    def require_same(self, once: Tensor, again: Tensor) -> None:
        """Expect that one sample was changed in the same way twice.

        Raises:
            InputError: it was not, but for rounding.
        """
        if not once.allclose(again, equal_nan=True) and not isinstance(self.change, Perturbation):
            raise InputError(
                f"condition {self.name!r} changes one sample in two ways: draw random numbers from "
                "a generator that is seeded by the index of the sample, its second argument"
            )


def conditions_of(given: Mapping[str, Change] | None) -> list[Condition]:
    """The conditions given by name.

    Raises:
        InputError: no mapping of names to callables.
    """
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise InputError(
            f'conditions must map names to changes, as {{"rot15": fastconv.perturb.rotate(15)}}, '
            f"got a {type(given).__name__}"
        )
    for name, change in given.items():
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"the name of a condition must be a text, got {name!r}")
        if not _takes_batches(change):
            raise InputError(
                f"condition {name!r} must be a function of (batch, samples), got {change!r}"
            )
    return [Condition(name, change) for name, change in given.items()]


def _takes_batches(change: Any) -> bool:
    if not callable(change):
        return False
    try:
        inspect.signature(change).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # it does not tell
        return True
    return True


def descriptions(conditions: list[Condition]) -> dict[str, dict[str, Any]] | None:
    """What identifies the conditions, for the fingerprint; None without any."""
    return {c.name: describe(c.change) for c in conditions} or None


def rebuilt(
    stored: Mapping[str, Mapping[str, Any]] | None, given: Mapping[str, Change] | None
) -> list[Condition]:
    """The conditions of a file: those given, and those that their descriptions tell how to make.

    Raises:
        InputError: neither.
    """
    own = {c.name: c for c in conditions_of(given)}
    found = []
    for name, description in (stored or {}).items():
        condition = own.get(name)
        if condition is None:
            change = from_description(description)
            if change is None:
                raise InputError(
                    f"condition {name!r} ({description.get('name')}) cannot be made again from the "
                    f"file; give it: conditions={{{name!r}: ...}}"
                )
            condition = Condition(name, change)
        found.append(condition)
    return found
