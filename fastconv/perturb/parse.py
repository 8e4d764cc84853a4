"""Perturbations by their short names, as the command line takes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastconv.errors import InputError
from fastconv.perturb.adversarial import fgsm, pgd
from fastconv.perturb.appearance import blur, brightness, contrast, frequency, hue, jpeg, noise
from fastconv.perturb.perturbation import Perturbation, Scale
from fastconv.perturb.placement import flip, rotate, scale, translate
from fastconv.perturb.sequence import drop_frames, shuffle_frames, stretch, time_shift
from fastconv.perturb.structure import occlude, shuffle_patches, silhouette

Make = Callable[[float, dict[str, Any]], Perturbation]

_NUMBERED: dict[str, tuple[str, Make]] = {  # short name: what its number is, how it is made
    "rot": ("degrees", lambda v, u: rotate(v)),
    "shift": ("pixels to the right and down", lambda v, u: translate(v, v)),
    "scale": ("factor", lambda v, u: scale(v)),
    "noise": ("sigma", lambda v, u: noise(v, **u)),
    "blur": ("sigma", lambda v, u: blur(v)),
    "bright": ("factor", lambda v, u: brightness(v, **u)),
    "contrast": ("factor", lambda v, u: contrast(v, **u)),
    "hue": ("turns", lambda v, u: hue(v, **u)),
    "jpeg": ("quality", lambda v, u: jpeg(_whole(v, "jpeg"), **u)),
    "lowpass": ("share of Nyquist", lambda v, u: frequency(v, "low")),
    "highpass": ("share of Nyquist", lambda v, u: frequency(v, "high")),
    "occlude": ("cells a side", lambda v, u: occlude(_whole(v, "occlude"), **u)),
    "shuffle": ("cells a side", lambda v, u: shuffle_patches(_whole(v, "shuffle"))),
    "timeshift": ("steps", lambda v, u: time_shift(_whole(v, "timeshift"))),
    "stretch": ("factor", lambda v, u: stretch(v)),
    "drop": ("share of frames", lambda v, u: drop_frames(v)),
    "fgsm": ("epsilon in 1/255", lambda v, u: fgsm(v / 255, **u)),
    "pgd": ("epsilon in 1/255", lambda v, u: pgd(v / 255, **u)),
}
_PLAIN: dict[str, Callable[[], Perturbation]] = {
    "flip": flip,
    "silhouette": silhouette,
    "shuffleframes": shuffle_frames,
}


def parse(text: str, *, mean: Scale = 0.0, std: Scale = 1.0) -> dict[str, Perturbation]:
    """Perturbations by short names, such as "rot15,noise0.1,fgsm2"; each is a key of the result.

    Args:
        text: names with their number, separated by commas. fgsm and pgd count in 1/255.
        mean: what was subtracted from the model's input, for those that need it.
        std: what it was divided by.

    Raises:
        InputError: no perturbation is called so, or its number is missing or out of range.
    """
    units = {"mean": mean, "std": std}
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < len(names):
        raise InputError(f"conditions must differ from each other, got {text!r}")
    return {name: _made(name, units) for name in names}


def _made(name: str, units: dict[str, Any]) -> Perturbation:
    found = re.fullmatch(r"([a-z]+)(-?[0-9]+(?:\.[0-9]+)?)?", name)
    word, number = found.groups() if found else ("", None)
    if word in _PLAIN and number is None:
        return _PLAIN[word]()
    if word in _NUMBERED and number is not None:
        return _NUMBERED[word][1](float(number), units)
    if word in _NUMBERED:
        raise InputError(f"{name!r} needs its {_NUMBERED[word][0]}, as in {word}4")
    known = ", ".join([f"{w}<{what}>" for w, (what, _) in _NUMBERED.items()] + list(_PLAIN))
    raise InputError(f"no condition is called {name!r}; known are {known}")


def _whole(value: float, name: str) -> int:
    if value != int(value):
        raise InputError(f"{name} needs a whole number, got {value}")
    return int(value)
