"""Builds the native libraries on the LibTorch stable ABI; the rest: pyproject.toml.

`fastconv._C`, the CPU kernels, always; `fastconv._C_cuda`, the CUDA kernels, as FASTCONV_CUDA says:
"auto" (default): where torch has CUDA and a toolkit is found; "1": always, or fail; "0": never.
"""

import os
import re
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.build_clib import build_clib
from setuptools.errors import SetupError
from torch.utils import cpp_extension
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
from torch.version import cuda as torch_cuda

CPU, CUDA = Path("csrc/cpu"), Path("csrc/cuda")
HEADERS = sorted(str(p) for pattern in ("*.h", "*.inc") for p in Path("csrc").rglob(pattern))
CXX = ["-O3", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-unused-function"]
CXX += ["-ffp-contract=off"]  # an expression rounds as written, on every instruction set
ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030A0000"]

# Instruction sets beyond what the compiler assumes anyway: x86-64 alone has some.
ISA: dict[str, list[str]] = {"scalar": []}
if sysconfig.get_platform().endswith(("x86_64", "amd64")):
    CXX += ["-DFASTCONV_X86"]
    ISA["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    ISA["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"]
    ISA["avx512"] += ["-Wno-maybe-uninitialized"]  # gcc 12 warns about its own intrinsics
    ISA["amx"] = [*ISA["avx512"], "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]

NVCC = ["-O3", "-std=c++20", "--expt-relaxed-constexpr"]
NVCC += ["--fmad=false"]  # as -ffp-contract=off; where one rounding is meant, fmaf says so
ARCHITECTURES = ["arch=compute_80,code=[sm_80,compute_80]"]  # the PTX is for whatever comes
ARCHITECTURES += ["arch=compute_90a,code=sm_90a", "arch=compute_100,code=sm_100"]


def isa_library(isa: str) -> tuple[str, dict]:
    """One static library per instruction set: the only code compiled with its flags."""
    source = str(CPU / f"instantiate_{isa}.cpp")
    return f"fastconv_{isa}", {
        "sources": [source],
        "cflags": [*CXX, *ISA[isa]],
        "obj_deps": {"": [*HEADERS], source: HEADERS},
    }


def cpu_extension() -> CppExtension:
    return CppExtension(
        "fastconv._C",
        sorted(str(p) for p in CPU.glob("*.cpp") if not p.name.startswith("instantiate_")),
        depends=HEADERS,
        py_limited_api=True,
        extra_compile_args=[*CXX, *ABI],
    )


def toolkit() -> str | None:
    """The folder of CUDA: torch's guess, or where its nvcc, which may be a script, says it is."""
    guess = cpp_extension.CUDA_HOME
    nvcc = Path(guess or "") / "bin" / "nvcc"
    if guess is None or not nvcc.exists():
        return guess
    command = [nvcc, "--dryrun", "-x", "cu", os.devnull]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    top = re.search(r"^#\$ TOP=(.+)$", told, re.MULTILINE)
    return os.path.realpath(top[1]) if top else guess


def no_cuda() -> str | None:
    """Why the CUDA kernels cannot be built here, or None."""
    if torch_cuda is None:
        return "this torch is built without CUDA; install a CUDA build of torch first"
    cpp_extension.CUDA_HOME = home = toolkit()  # torch compiles and links with what is there
    nvcc = Path(home or "") / "bin" / "nvcc"
    if home is None or not nvcc.exists():
        return f"no nvcc is found; set CUDA_HOME to a CUDA {torch_cuda} toolkit"
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+)\.(\d+)", told)
    if found is None:
        return f"{nvcc} --version names no release"
    if found[1] != torch_cuda.split(".")[0]:
        version = f"{found[1]}.{found[2]}"
        return f"{nvcc} is of CUDA {version}, this torch is built with CUDA {torch_cuda}"
    return None


def cuda_extension() -> CUDAExtension:
    flags = [flag for code in chosen_architectures() for flag in ("-gencode", code)]
    return CUDAExtension(
        "fastconv._C_cuda",
        sorted(str(p) for pattern in ("*.cpp", "*.cu") for p in CUDA.glob(pattern)),
        depends=[*HEADERS, *sorted(str(p) for p in CUDA.glob("*.cuh"))],
        py_limited_api=True,
        extra_compile_args={"cxx": [*CXX, *ABI, "-DUSE_CUDA"], "nvcc": [*NVCC, *flags]},
    )


def chosen_architectures() -> list[str]:
    """All, or those of TORCH_CUDA_ARCH_LIST ("9.0a", say), which is quicker to build."""
    named = re.findall(r"\d+\.\d+[af]?", os.environ.get("TORCH_CUDA_ARCH_LIST", ""))
    numbers = [name.replace(".", "") for name in named]
    return [f"arch=compute_{n},code=sm_{n}" for n in numbers] or ARCHITECTURES


def extensions() -> list:
    wanted = os.environ.get("FASTCONV_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SetupError(f"FASTCONV_CUDA must be auto, 0 or 1, got {wanted!r}")
    reason = "FASTCONV_CUDA=0" if wanted == "0" else no_cuda()
    if reason is None:
        return [cpu_extension(), cuda_extension()]
    if wanted == "1":
        raise SetupError(f"FASTCONV_CUDA=1, but the CUDA kernels cannot be built: {reason}")
    print(f"fastconv: without CUDA kernels: {reason}")
    return [cpu_extension()]


class BuildLibraries(build_clib):
    def build_libraries(self, libraries):
        """Side by side: they are most of the time that a build takes."""
        one = super().build_libraries
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda library: one([library]), libraries))


class BuildNative(BuildExtension):
    def run(self):
        self.run_command("build_clib")  # first: the extension links what it makes
        super().run()


setup(
    libraries=[isa_library(isa) for isa in ISA],
    ext_modules=extensions(),
    cmdclass={"build_clib": BuildLibraries, "build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
