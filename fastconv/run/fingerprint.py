"""What a result depends on, as hashes and plain values that can be compared and named."""

from __future__ import annotations

import hashlib
import json
import platform
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn

from fastconv import dispatch
from fastconv.backends import cpu
from fastconv.errors import FingerprintError
from fastconv.version import __version__

_LENGTH = "data.length"  # None of a stream that has not been seen to end
MEASURING = ("conv_reduce", "channel_reduce")  # the ops whose kernels decide the bits


def model_hash(model: nn.Module) -> str:
    """sha256 over the names, dtypes, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for path, value in model.state_dict().items():
        name = path.replace("_orig_mod.", "")  # of a part that torch.compile wraps
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)};".encode())
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        else:
            digest.update(f"{name} {value!r};".encode())
    return digest.hexdigest()


def made_by(device: torch.device, backend: str) -> dict[str, Any]:
    """The software and the machine that numbers may depend on in their last bits.

    Args:
        device: where the model runs.
        backend: as asked for; "auto" stands for the best that this machine has.
    """
    usable = dispatch.backends(device)
    chosen = {op: usable[op][0] if backend == "auto" else backend for op in MEASURING}
    isa = cpu.isa() if "cpu" in chosen.values() else None
    gpu = None
    if device.type == "cuda":
        gpu = f"{torch.cuda.get_device_name(device)} {torch.cuda.get_device_capability(device)}"
    return {
        "backends": chosen,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "isa": isa,
        "gpu": gpu,
        "fastconv": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def require_equal(stored: dict[str, Any], wanted: dict[str, Any], what: str, remedy: str) -> None:
    """Compare two fingerprints; a length that one does not know yet fits any.

    Raises:
        FingerprintError: they differ; the message names each difference.
    """
    before, now = _flat(stored), _flat(wanted)
    lengths = [values.get(_LENGTH) for values in (before, now) if _LENGTH in values]
    unknown = {_LENGTH} if None in lengths else set()
    differences = [
        f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}"
        for key in sorted((before.keys() | now.keys()) - unknown)
        if before.get(key) != now.get(key)
    ]
    if differences:
        raise FingerprintError(f"{what} is of another run: {'; '.join(differences)}; {remedy}")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON has them; what is inside `data` becomes `data.length` and so on."""
    found: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(values)).items():
        inner = value if isinstance(value, dict) else {}
        found |= {f"{key}.{name}": v for name, v in inner.items()} or {key: value}
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
