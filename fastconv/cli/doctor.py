"""`fastconv doctor`: what runs on this machine, and why the rest does not."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("torch", "triton", "numpy", "h5py", "isal", "Pillow", "tqdm")
_EXTRAS = ("safetensors", "torchvision", "timm", "scikit-learn", "scikit-image", "matplotlib")


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    del arguments
    for title, lines in (
        ("Versions", _versions()),
        ("Processor", _processor()),
        ("GPU", _gpu()),
        ("Backends", _backends()),
    ):
        print(title)
        for name, text in lines:
            print(f"  {name:<18} {text}")
    return 0


def _versions() -> list[tuple[str, str]]:
    import h5py

    import fastconv

    lines = [
        ("fastconv", f"{fastconv.__version__} in {Path(fastconv.__file__).parent}"),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
    ]
    lines += [(name, _version(name)) for name in (*_PACKAGES, *_EXTRAS)]
    return [*lines, ("HDF5", h5py.version.hdf5_version)]


def _version(package: str) -> str:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    if package != "isal":
        return version
    try:
        importlib.import_module("isal.isal_zlib")
    except ImportError as error:
        return f"{version}, but it does not load ({error}): deflate will be slower"
    return f"{version}: fast deflate"


def _processor() -> list[tuple[str, str]]:
    import torch

    from fastconv.backends import cpu

    lines = [("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")]
    reason = cpu.unavailable()
    if reason is not None:
        return [*lines, ("instruction set", f"unknown: {reason}")]
    chosen = " (FASTCONV_ISA)" if os.environ.get("FASTCONV_ISA") else ""
    supported = ", ".join(cpu.supported_isas())
    return [*lines, ("instruction set", f"{cpu.isa()}{chosen}; this machine runs {supported}")]


def _gpu() -> list[tuple[str, str]]:
    import torch

    if torch.version.cuda is None:
        return [("cuda", "no: this torch is built without CUDA")]
    if not torch.cuda.is_available():
        return [("cuda", f"no: torch has CUDA {torch.version.cuda}, but finds no device or driver")]
    return [(f"cuda:{i}", _device(i)) for i in range(torch.cuda.device_count())]


def _device(index: int) -> str:
    import torch

    major, minor = torch.cuda.get_device_capability(index)
    text = f"{torch.cuda.get_device_name(index)}, sm_{major}{minor}, CUDA {torch.version.cuda}"
    if major < 8:
        text += "; older than sm_80: no bfloat16, no Triton kernels, plain torch instead"
    return text


def _backends() -> list[tuple[str, str]]:
    """Per device and op, best first; then every backend that is missing, and why."""
    import torch

    from fastconv import dispatch

    lines = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for op, names in dispatch.backends(device).items():
            lines.append((op, f"{device}: {', '.join(names)}"))
    for name in ("cpu", "triton", "cuda"):
        loaded = dispatch.load(name)
        if isinstance(loaded, str):
            lines.append((f"no {name}", loaded))
    return lines
