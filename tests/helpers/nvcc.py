"""Compiling csrc/cuda with nvcc, on machines without a GPU and without a CUDA torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "csrc" / "cuda"


def find_nvcc() -> str | None:
    """CUDA_HOME's, that on the PATH, or that of the registry's packages (nvidia-cuda-nvcc, ...)."""
    packages = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    places = [Path(os.environ[k]) / "bin" for k in ("CUDA_HOME", "CUDA_PATH") if k in os.environ]
    found = [shutil.which("nvcc", path=str(place)) for place in places]
    found += [shutil.which("nvcc"), *map(str, sorted(packages.glob("cu*/bin/nvcc")))]
    return next((path for path in found if path), None)


@dataclass(frozen=True)
class Compiled:
    """What ptxas says of one kernel for one architecture."""

    kernel: str  # mangled
    architecture: str
    registers: int
    shared: int  # bytes, static
    stack: int
    spilled: int  # bytes stored and loaded


_KERNEL = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'\n"
    r".*Function properties for .*\n"
    r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads\n"
    r".*Used (?P<registers>\d+) registers(?P<rest>.*)"
)


def kernels_in(report: str) -> list[Compiled]:
    """The kernels of a `-Xptxas -v` report."""
    found = []
    for m in _KERNEL.finditer(report):
        shared = re.search(r"(\d+) bytes smem", m["rest"])
        stack, spilled = int(m["stack"]), int(m["stores"]) + int(m["loads"])
        used = int(m["registers"]), int(shared[1]) if shared else 0
        found.append(Compiled(m["kernel"], m["architecture"], *used, stack, spilled))
    return found


def compile_source(nvcc: str, source: Path, out: Path, flags: list[str]) -> str:
    """Object code at `out`; what nvcc and ptxas said."""
    command = [nvcc, "-c", str(source), "-o", str(out), "-Xptxas", "-v", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
