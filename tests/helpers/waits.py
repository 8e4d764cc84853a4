"""Finds what would make the host wait for a device, on tensors of any device."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "_local_scalar_dense",  # .item(), int(), bool()
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
    "lift_fresh",  # torch.tensor: a tensor of Python numbers: copied to the device
    "_to_copy",  # between devices: see below
    "index",  # with a mask: see below
    "index_put_",
}
COPYING = ("cpu", "numpy", "tolist")  # methods that no operation shows where all is on the CPU


class Waits(TorchDispatchMode):
    """Collects the names of operations whose result, or the shape of it, the host must read."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.seen = 0

    def __enter__(self):
        for name in COPYING:
            setattr(torch.Tensor, name, self._noted(name))
        return super().__enter__()

    def __exit__(self, *error):
        for name in COPYING:
            delattr(torch.Tensor, name)  # the inherited one comes back
        return super().__exit__(*error)

    def _noted(self, name: str):
        plain = getattr(torch.Tensor, name)

        def call(tensor, *args, **kwargs):
            self.found.append(name)
            return plain(tensor, *args, **kwargs)

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.seen += 1
        name = func._schema.name.split("::")[1]
        if name in WAITING and self._waits(name, args, kwargs):
            self.found.append(name)
        return func(*args, **kwargs)

    @staticmethod
    def _waits(name: str, args: tuple, kwargs: dict) -> bool:
        if name in ("index", "index_put_"):
            masks = (torch.bool, torch.uint8)
            return any(i is not None and i.dtype in masks for i in args[1])
        if name == "_to_copy":
            return kwargs.get("device") not in (None, args[0].device)
        return True
