"""The only place that chooses which backend runs an op.

A backend is a module `fastconv.backends.<name>` with

- `unavailable() -> str | None`: why nothing of it can run on this machine, or None;
- `KERNELS: dict[op, Kernel]`: what it implements: the public ops (`OPS`), and what running
  states and files need besides (`place_patches`, `paste_patches`, `shrink_colours`, `exact_add`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Set
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fastconv.backends import Kernel  # the package now, lest it later hide backends()
from fastconv.errors import BackendUnavailableError, InputError

OPS = ("conv_reduce", "channel_reduce", "channel_normalize", "topk_merge", "gather_patches")
_BEST_FIRST = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}
_NAMES = ("reference", "cpu", "triton", "cuda")
_PLAIN = frozenset((Tensor, Parameter, type(None), list, str, int, bool, float))


@cache
def load(name: str) -> ModuleType | str:
    """The backend's module, or the reason why it cannot be used here."""
    try:
        module = importlib.import_module(f"fastconv.backends.{name}")
    except ImportError as error:
        if error.name == f"fastconv.backends.{name}":
            return "it is not installed"
        return f"it cannot be imported: {error}"
    return module.unavailable() or module


def run(op: str, backend: str, *args: Any, **extra: Any) -> Any:
    """Run an op on checked arguments, the first a tensor, without gradients: its kernel at once.

    Where torch must see the op, its operator `torch.ops.fastconv.<op>` does that: a call through
    it takes 4 us more.

    Args:
        extra: keywords that the kernel must take (`Kernel.takes`).
    """
    if not extra and _traced(args):
        return getattr(torch.ops.fastconv, op)(*args, backend)
    with torch._C._AutoDispatchBelowAutograd():  # as behind the operator; no_grad costs 1 us
        device = args[0].device
        return kernel(op, backend, device, *args, needs=extra.keys()).run(*args, **extra)


def _traced(args: tuple[Any, ...]) -> bool:
    """Whether torch compiles or traces, has a dispatch mode, or a tensor is of a subclass."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or not _PLAIN.issuperset(map(type, args))
    )


def select(op: str, backend: str, device: torch.device, *args: Any) -> Callable[..., Any]:
    """What runs `op(*args)`; see `kernel`."""
    return kernel(op, backend, device, *args).run


def kernel(
    op: str, backend: str, device: torch.device, *args: Any, needs: Set[str] = frozenset()
) -> Kernel:
    """The kernel that runs `op(*args)`: the best that supports it, or the one named.

    Args:
        needs: keywords beside `args` that it must take (`Kernel.takes`).

    Raises:
        InputError: an unknown backend name.
        BackendUnavailableError: the named backend cannot run this call (it never falls back).
    """
    if backend != "auto":
        return _named(op, backend, device, args, needs)
    for name in _BEST_FIRST.get(device.type, ("reference",)):
        module = load(name)
        if isinstance(module, str) or op not in module.KERNELS:
            continue
        found: Kernel = module.KERNELS[op]
        if needs <= found.takes and found.supports(*args) is None:
            return found
    raise BackendUnavailableError(f"no backend runs {op} on {device}")


def check_name(backend: str) -> None:
    """Raise InputError unless it is "auto" or the name of a backend."""
    if backend != "auto" and backend not in _NAMES:
        raise InputError(f"backend must be 'auto' or one of {', '.join(_NAMES)}, got {backend!r}")


def _named(
    op: str, name: str, device: torch.device, args: tuple[Any, ...], needs: Set[str]
) -> Kernel:
    check_name(name)
    module = load(name)
    if isinstance(module, str):
        raise BackendUnavailableError(f"backend {name!r} is not available: {module}")
    if op not in module.KERNELS:
        raise BackendUnavailableError(
            f"backend {name!r} has no {op}; it has {list(module.KERNELS)}"
        )
    found: Kernel = module.KERNELS[op]
    missing = needs - found.takes
    reason = f"it takes no {' and no '.join(sorted(missing))}" if missing else found.supports(*args)
    if reason is not None:
        raise BackendUnavailableError(
            f"backend {name!r} cannot run this {op} on {device}: {reason}"
        )
    return found


def backends(device: torch.device | str | None = None) -> dict[str, list[str]]:
    """The usable backends of every op on a device (default "cpu"), best first."""
    kind = torch.device(device or "cpu").type
    found: dict[str, list[str]] = {op: [] for op in OPS}
    for name in _BEST_FIRST.get(kind, ("reference",)):
        module = load(name)
        if not isinstance(module, str):
            for op in found:
                if op in module.KERNELS:
                    found[op].append(name)
    return found
