"""The kernels of csrc/cuda on a GPU if there is one, else compiled for the processor."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths, library_paths

HERE = Path(__file__).parent
SOURCES = Path(__file__).parents[3] / "csrc" / "cuda"
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-Wno-attributes"]
DEFINES = ["FASTCONV_ON_HOST", "TORCH_TARGET_VERSION=0x020a000000000000"]


def build_on_host(folder: Path) -> Path:
    """A library of every kernel and binding, for tensors on the CPU."""
    includes = [HERE, SOURCES, *include_paths(), sysconfig.get_paths()["include"]]
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


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """`KERNELS` of the backend; without a GPU they run on CPU tensors."""
    from fastconv.backends import cuda
    from fastconv.backends.cuda import limits

    if torch.cuda.is_available():
        if cuda.unavailable():
            pytest.skip(cuda.unavailable())
        yield cuda.KERNELS
        return
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the kernels for the processor")
    torch.ops.load_library(build_on_host(tmp_path_factory.mktemp("on_host")))
    before = limits.no_device
    limits.no_device = lambda x: None
    yield cuda.KERNELS
    limits.no_device = before


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def poisoned_memory():
    """torch.empty gives NaN and the largest integers: what a kernel forgets to write shows."""
    before = torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False  # of the reference
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.backends.cudnn.allow_tf32 = before
