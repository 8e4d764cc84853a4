"""The kernels of GPUs on the processor: CUDA C++ compiled for it, Triton's interpreted.

As a plugin of pytest (`-p helpers.on_host`) it puts both before the other backends of CPU tensors,
so that tests that ask the registry run them. FASTCONV_ON_HOST names the library of `build_on_host`.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

TESTS = Path(__file__).parents[1]
SOURCES = TESTS.parent / "csrc" / "cuda"
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-Wno-attributes"]
DEFINES = ["FASTCONV_ON_HOST", "TORCH_TARGET_VERSION=0x020a000000000000"]


def build_on_host(folder: Path) -> Path:
    """A library of every CUDA kernel and binding, for tensors on the CPU."""
    stand_in = TESTS / "backends" / "cuda"
    includes = [stand_in, SOURCES, *include_paths(), sysconfig.get_paths()["include"]]
    common = [*FLAGS, *(f"-D{name}" for name in DEFINES), *(f"-I{path}" for path in includes)]

    def compiled(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        subprocess.run(["g++", *common, "-x", "c++", "-c", source, "-o", made], check=True)
        return made

    sources = sorted([*SOURCES.glob("*.cu"), *SOURCES.glob("*.cpp")])
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    library = folder / "on_host.so"
    links = [f"-L{path}" for path in library_paths()]
    subprocess.run(
        ["g++", "-shared", *objects, *links, "-ltorch", "-ltorch_cpu", "-lc10", "-o", library],
        check=True,
    )
    return library


def pytest_configure(config) -> None:
    """Before the tests are collected: they ask the registry then."""
    os.environ["TRITON_INTERPRET"] = "1"
    from fastconv import dispatch
    from fastconv.backends import cuda
    from fastconv.backends.cuda import limits

    torch.ops.load_library(os.environ["FASTCONV_ON_HOST"])
    cuda.unavailable = lambda: None
    limits.no_device = lambda x: None
    dispatch._BEST_FIRST["cpu"] = ("cuda", "triton", *dispatch._BEST_FIRST["cpu"])
    dispatch.load.cache_clear()
