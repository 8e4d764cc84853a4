"""Builds `fastconv._C`, the CPU kernels, on the LibTorch stable ABI; the rest: pyproject.toml."""

from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

CPU = Path("csrc/cpu")
HEADERS = sorted(str(p) for pattern in ("*.h", "*.inc") for p in Path("csrc").rglob(pattern))
CXX = ["-O3", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-unused-function"]
CXX += ["-ffp-contract=off"]  # an expression rounds as written, on every instruction set
ISA = {
    "scalar": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"],
}
ISA["avx512"] += ["-Wno-maybe-uninitialized"]  # gcc 12 warns about its own intrinsics
ISA["amx"] = [*ISA["avx512"], "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]


def isa_library(isa: str) -> tuple[str, dict]:
    """One static library per instruction set: the only code compiled with its flags."""
    source = str(CPU / f"instantiate_{isa}.cpp")
    return f"fastconv_{isa}", {
        "sources": [source],
        "cflags": [*CXX, *ISA[isa]],
        "obj_deps": {"": [*HEADERS], source: HEADERS},
    }


class BuildNative(BuildExtension):
    def run(self):
        self.run_command("build_clib")  # first: the extension links what it makes
        super().run()


setup(
    libraries=[isa_library(isa) for isa in ISA],
    ext_modules=[
        CppExtension(
            "fastconv._C",
            sorted(str(p) for p in CPU.glob("*.cpp") if not p.name.startswith("instantiate_")),
            depends=HEADERS,
            py_limited_api=True,
            extra_compile_args=[
                *CXX,
                "-DTORCH_TARGET_VERSION=0x020a000000000000",
                "-DPy_LIMITED_API=0x030A0000",
            ],
        )
    ],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
