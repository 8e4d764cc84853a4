"""The build on other machines: other processors, no CUDA, a CUDA that does not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from torch.utils import cpp_extension

ROOT = Path(__file__).parents[1]
CROSS = "aarch64-linux-gnu-g++"
X86_ONLY = {f"instantiate_{isa}.cpp" for isa in ("avx2", "avx512", "amx")}


def setup_says(**environment: str) -> subprocess.CompletedProcess:
    """`setup.py` up to where it would build, which does not need what it builds."""
    command = [sys.executable, "setup.py", "--name"]
    env = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")}
    return subprocess.run(
        command, cwd=ROOT, env=env | environment, capture_output=True, text=True, check=False
    )


def values_of_setup(monkeypatch, platform: str) -> dict:
    """The names that setup.py defines on a platform."""
    monkeypatch.setattr(sysconfig, "get_platform", lambda: platform)
    text = (ROOT / "setup.py").read_text().partition("\nsetup(")[0]
    names: dict = {}
    exec(compile(text, "setup.py", "exec"), names)
    return names


@pytest.mark.parametrize(
    ("platform", "levels"),
    [
        ("linux-x86_64", ["scalar", "avx2", "avx512", "amx"]),
        ("macosx-14.0-x86_64", ["scalar", "avx2", "avx512", "amx"]),
        ("linux-aarch64", ["scalar"]),
        ("macosx-14.0-arm64", ["scalar"]),
        ("macosx-11.0-universal2", ["scalar"]),
    ],
)
def test_x86_flags_are_for_x86_alone(platform, levels, monkeypatch):
    names = values_of_setup(monkeypatch, platform)
    assert list(names["ISA"]) == levels
    assert ("-DFASTCONV_X86" in names["CXX"]) == (len(levels) > 1)
    if len(levels) == 1:
        assert not [flag for flag in names["CXX"] if flag.startswith("-m")]


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(CROSS) is None, reason=f"no {CROSS} (Debian: g++-aarch64-linux-gnu)"
)
def test_every_source_of_the_cpu_kernels_compiles_for_aarch64(tmp_path, monkeypatch):
    flags = values_of_setup(monkeypatch, "linux-aarch64")
    includes = [*cpp_extension.include_paths(), sysconfig.get_paths()["include"]]
    objects = []
    for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")):
        if source.name in X86_ONLY:
            continue
        objects.append(tmp_path / f"{source.stem}.o")
        command = [
            CROSS, *flags["CXX"], *flags["ABI"], "-O1", *(f"-I{path}" for path in includes),
            "-c", str(source), "-o", str(objects[-1]),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{source.name}: {done.stderr}"
    undefined = subprocess.run(
        ["aarch64-linux-gnu-nm", "-C", "--undefined-only", *objects],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "kAvx" not in undefined and "kAmx" not in undefined  # nothing that nobody compiles


def test_cuda_without_a_toolkit_is_left_out_and_said():
    import torch

    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA")
    reason = "this torch is built without CUDA; install a CUDA build of torch first"
    found = setup_says()
    assert found.returncode == 0, found.stderr
    assert f"fastconv: without CUDA kernels: {reason}" in found.stdout
    forced = setup_says(FASTCONV_CUDA="1")
    assert forced.returncode != 0
    assert f"FASTCONV_CUDA=1, but the CUDA kernels cannot be built: {reason}" in forced.stderr
    never = setup_says(FASTCONV_CUDA="0")
    assert never.returncode == 0 and "FASTCONV_CUDA=0" in never.stdout
    wrong = setup_says(FASTCONV_CUDA="yes")
    assert wrong.returncode != 0 and "must be auto, 0 or 1, got 'yes'" in wrong.stderr


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (None, "no nvcc is found; set CUDA_HOME to a CUDA 13.0 toolkit"),
        ("release 12.8, V12.8.93", "is of CUDA 12.8, this torch is built with CUDA 13.0"),
        ("", "--version names no release"),
        ("release 13.1, V13.1.1", None),
    ],
)
def test_why_there_are_no_cuda_kernels(told, reason, tmp_path, monkeypatch):
    names = values_of_setup(monkeypatch, "linux-x86_64")
    names["torch_cuda"] = "13.0"
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    if told is not None:
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.parent.mkdir()
        nvcc.write_text(f"#!/bin/sh\necho '{told}'\n")
        nvcc.chmod(0o755)
    found = names["no_cuda"]()
    assert found is None if reason is None else reason in found


def test_cuda_is_linked_from_where_nvcc_lies_not_from_a_script_that_calls_it(tmp_path, monkeypatch):
    names = values_of_setup(monkeypatch, "linux-x86_64")
    names["torch_cuda"] = "13.0"
    real, script = (tmp_path / folder / "bin" / "nvcc" for folder in ("cuda-13.0", "local"))
    says = f"#!/bin/sh\necho 'release 13.0, V13.0.88'\necho '#$ TOP={real.parent}/..' >&2\n"
    for nvcc, text in ((real, says), (script, f'#!/bin/sh\nexec {real} "$@"\n')):
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text(text)
        nvcc.chmod(0o755)
    (tmp_path / "cuda-13.0" / "lib64").mkdir()
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path / "local"))
    assert names["no_cuda"]() is None
    assert str(tmp_path / "cuda-13.0" / "lib64") in cpp_extension.library_paths("cuda")


def test_one_architecture_is_quicker_to_build(monkeypatch):
    names = values_of_setup(monkeypatch, "linux-x86_64")
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert names["chosen_architectures"]() == names["ARCHITECTURES"]
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0a;12.0+PTX")
    wanted = ["arch=compute_90a,code=sm_90a", "arch=compute_120,code=sm_120"]
    assert names["chosen_architectures"]() == wanted


def test_the_bindings_use_no_macro_that_an_older_torch_lacks():
    """torch 2.10 and 2.13 have STABLE_TORCH_ERROR_CODE_CHECK, 2.11 has not."""
    bindings = sorted((ROOT / "csrc").rglob("bindings*.cpp"))
    assert len(bindings) > 2
    assert not [p.name for p in bindings if "STABLE_TORCH_ERROR_CODE_CHECK" in p.read_text()]
