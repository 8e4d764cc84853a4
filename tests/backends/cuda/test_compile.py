"""Every CUDA source compiles for every architecture within the budgets beside the kernels."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.nvcc import SOURCES, compile_source, find_nvcc, kernels_in
from torch.utils.cpp_extension import include_paths

NVCC = find_nvcc()
pytestmark = [
    pytest.mark.nvcc,
    pytest.mark.slow,
    pytest.mark.skipif(NVCC is None, reason="no nvcc: not in CUDA_HOME, the PATH or site-packages"),
]
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
# registers and bytes of static shared memory, as the headers say
BUDGET = {
    "planar_reduce_kernel": (128, 10_256),
    "lanes_reduce_kernel": (128, 20_480),
    "merge_segments_kernel": (64, 0),
    "depthwise_kernel": (168, 5_120),
    "topk_merge_kernel": (64, 8_208),
    "patches_kernel": (64, 0),
}
CUDA_SOURCES = sorted(SOURCES.glob("*.cu"))


@pytest.fixture(scope="module")
def setup_flags() -> list[str]:
    """The flags of setup.py."""
    setup = SOURCES.parents[1] / "setup.py"
    text = setup.read_text().partition("\nsetup(")[0]
    names: dict = {"__file__": str(setup)}
    exec(compile(text, str(setup), "exec"), names)
    return [*names["NVCC"], *(f for code in names["ARCHITECTURES"] for f in ("-gencode", code))]


@pytest.fixture(scope="module")
def reports(setup_flags, tmp_path_factory) -> dict[str, str]:
    """What the compiler says of each source, for all architectures at once."""
    folder = tmp_path_factory.mktemp("nvcc")

    def report(source: Path) -> str:
        return compile_source(NVCC, source, folder / f"{source.stem}.o", setup_flags)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(
            zip([s.stem for s in CUDA_SOURCES], pool.map(report, CUDA_SOURCES), strict=True)
        )


def test_every_kernel_keeps_its_budget(reports):
    seen: dict[str, set[str]] = {}
    beyond = []
    for report in reports.values():
        for found in kernels_in(report):
            kernel = next(k for k in BUDGET if k in found.kernel)
            registers, shared = BUDGET[kernel]
            # rows of 7 taps at stride 2; counts of transformed values, channels last
            if re.search(r"depthwise.*Li7ELi2E|lanes.*Lb0ELb1E", found.kernel):
                registers = 255
            fits = found.registers <= registers and found.shared <= shared
            if not fits or found.spilled or found.stack:
                beyond.append(str(found))
            seen.setdefault(kernel, set()).add(found.architecture)
    assert not beyond, "\n".join(beyond)
    assert seen == {kernel: set(ARCHITECTURES) for kernel in BUDGET}


def test_the_compiler_warns_of_nothing(reports):
    for name, report in reports.items():
        assert not re.findall(r"C75\d\d|[Ww]arning", report), f"{name}: {report[-2000:]}"


def test_the_binary_holds_every_architecture_and_portable_code(setup_flags):
    text = " ".join(setup_flags)
    assert all(architecture in text for architecture in ARCHITECTURES)
    assert "code=[sm_80,compute_80]" in text


def test_the_bindings_compile_against_the_stable_abi(tmp_path):
    includes = [*include_paths(), sysconfig.get_paths()["include"]]
    command = [
        "g++", "-std=c++20", "-fPIC", "-Wall", "-DUSE_CUDA", "-DPy_LIMITED_API=0x030A0000",
        "-DTORCH_TARGET_VERSION=0x020a000000000000", *(f"-I{path}" for path in includes),
        "-c", str(SOURCES / "bindings.cpp"), "-o", str(tmp_path / "bindings.o"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr


def test_only_the_bindings_know_torch():
    for path in [*SOURCES.glob("*.cu"), *SOURCES.glob("*.cuh"), SOURCES / "kernels.h"]:
        assert "torch/" not in path.read_text(), path.name
