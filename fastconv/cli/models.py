"""MODEL on the command line: a name, a factory, and perhaps weights from a file."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fastconv.errors import InputError

_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile


def open_model(spec: str, weights: str | None) -> nn.Module:
    """Make the model that `spec` names.

    Args:
        spec: `torchvision:NAME`, `timm:NAME`, `package.module:factory` or `file.py:factory`.
        weights: a safetensors file or a checkpoint; without it torchvision and timm models have
            random weights, the same each time.

    Raises:
        InputError: no such model, a factory that fails, or weights that do not fit.
    """
    torch.manual_seed(0)  # resume and verify need the same random weights each time
    library, _, name = spec.partition(":")
    if library == "torchvision":
        model = _torchvision(name)
    elif library == "timm":
        model = _timm(name)
    else:
        model = call_factory(spec, "MODEL")
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec} gives a {type(model).__name__}, not a torch.nn.Module")
    if weights is not None:
        load_weights(model, weights)
    elif library in ("torchvision", "timm"):
        print(f"{spec} without --weights: its weights are random", file=sys.stderr)
    return model


def call_factory(spec: str, what: str) -> Any:
    """The value of `file.py:name` or `package.module:name`; functions and classes are called."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise InputError(
            f"{what} must be file.py:factory or package.module:factory, got {spec!r}; "
            "see fastconv extract --help"
        )
    try:
        module = _module_of_file(Path(place)) if place.endswith(".py") else _module(place)
        if not hasattr(module, name):
            raise InputError(f"{place} has no {name!r}{_near(name, vars(module))}")
        found = getattr(module, name)
        if not callable(found) or isinstance(found, nn.Module):
            return found
        torch.manual_seed(0)  # again: importing may have drawn random numbers
        return found()
    except InputError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name} line {frame.lineno}"
        raise InputError(f"{spec} fails: {type(error).__name__}: {error} ({where})") from error


def load_weights(model: nn.Module, file: str | os.PathLike[str]) -> None:
    """Fill a model from a safetensors file or a checkpoint; nothing in it is executed.

    A state dict may lie under "state_dict", "model_state_dict" or "model", and its names may start
    with "module." or "_orig_mod.".

    Raises:
        InputError: an unreadable file, or one that does not fit: the message names the first
            missing, unexpected and mis-shaped entries.
    """
    state = _state_dict(Path(file))
    own = model.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} {list(state[k].shape)} (the model has {list(own[k].shape)})"
        for k in own
        if k in state and isinstance(own[k], Tensor) and state[k].shape != own[k].shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    found = [f"{len(names)} {what}: {_first(names)}" for what, names in problems if names]
    if found:
        raise InputError(f"the weights in {file} do not fit the model: {'; '.join(found)}")
    model.load_state_dict(state, strict=False)


def _state_dict(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    state = _safetensors(file) if file.suffix == ".safetensors" else _checkpoint(file)
    for key in _CHECKPOINT_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(
            f"{file} holds no state dict (names and tensors), neither at its top nor under "
            + ", ".join(repr(key) for key in _CHECKPOINT_KEYS)
        )
    for prefix in _PREFIXES:
        if state and all(str(k).startswith(prefix) for k in state):
            state = {str(k).removeprefix(prefix): v for k, v in state.items()}
    return dict(state)


def _checkpoint(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{file} cannot be loaded safely (weights_only=True): {reason} ...; "
            "save model.state_dict() alone, or use safetensors"
        ) from error


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError("safetensors is missing: pip install 'fastconv[safetensors]'") from error
    try:
        return load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file} is not a safetensors file: {error}") from error


def _torchvision(name: str) -> nn.Module:
    models = _library("torchvision.models")
    if name not in models.list_models():
        raise InputError(f"torchvision has no model {name!r}{_near(name, models.list_models())}")
    return models.get_model(name, weights=None)


def _timm(name: str) -> nn.Module:
    timm = _library("timm")
    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}{_near(name, timm.list_models())}")
    return timm.create_model(name, pretrained=False)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # RuntimeError where it was built for another torch
        package = name.partition(".")[0]
        raise InputError(
            f"{package} cannot be imported ({type(error).__name__}: {error}); install the build "
            "that fits this torch: pip install 'fastconv[models]'"
        ) from error


def _module(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: modules of the working directory
    return importlib.import_module(name)


def _module_of_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    sys.path.insert(0, str(file.parent.resolve()))  # as `python file.py` does
    name = f"_file_{file.stem}"  # must not hide an installed module of that name
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _near(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, [n for n in names if not n.startswith("_")])
    return f"; near: {', '.join(near)}" if near else ""
