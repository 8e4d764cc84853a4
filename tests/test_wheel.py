"""The wheel: built from the sources alone, installed elsewhere, used from another directory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("fastconv", "csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def run(*command, cwd, **environment):
    """Standard output; an error shows everything that was printed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=source, PYTHONPATH="")
    (wheel,) = (source / "dist").iterdir()
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps")
    run(*pip, "--target", target, wheel, cwd=target)
    return target


def test_one_wheel_serves_every_python_from_3_10(wheel):
    assert wheel.name.startswith("fastconv-")
    assert "-cp310-abi3-" in wheel.name


def test_the_wheel_works_from_another_directory(installed, tmp_path):
    code = (
        "import fastconv, torch; print(fastconv.__file__);"
        "print(fastconv.backends()['topk_merge'][0]);"
        "r = fastconv.channel_reduce(torch.ones(2, 3, 4)); print(r.sum.sum().item())"
    )
    out = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).split()
    assert Path(out[0]).is_relative_to(installed)
    assert out[1:] == ["cpu", "24.0"]


def test_the_command_of_the_wheel_runs(installed, tmp_path):
    program = installed / "bin" / "fastconv"
    out = run(program, "doctor", cwd=tmp_path, PYTHONPATH=str(installed))
    assert str(installed) in out


def test_the_wheel_holds_no_tests_and_no_sources_of_kernels(installed):
    files = {p.relative_to(installed).as_posix() for p in installed.rglob("*")}
    assert "fastconv/_C.abi3.so" in files
    assert not [f for f in files if f.endswith(".cpp") or f.startswith("tests")]
