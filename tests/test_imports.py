"""Imports go one way, top to bottom, as docs/architecture.md says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastconv"
TIERS = (
    {"cli"},
    {"demo"},
    {"export"},
    {"insight", "verification"},
    {"run"},
    {"engines"},
    {"perturb"},
    {"data"},
    {"capture", "store"},
    {"measure"},
    {"ops"},
    {"dispatch"},
    {"backends"},
    {"reduction"},
    {"draw"},
    {"format"},
    {"geometry", "histogram"},
    {"errors", "version", "_C", "_C_cuda"},
)
UNITS = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {
    "__init__",
    "__main__",
}
RANK = {name: rank for rank, tier in enumerate(TIERS) for name in tier}


def unit(module):
    """`store` for `fastconv.store.reader`."""
    return (module.split(".") + [""])[1]


def imported(file):
    """Every module of the package that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "fastconv")
        elif isinstance(node, ast.ImportFrom) and node.module == "fastconv":
            yield from (f"fastconv.{a.name}" for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastconv."):
            yield node.module


@pytest.mark.parametrize("name", sorted(UNITS))
def test_imports_go_down(name):
    place = PACKAGE / name
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    upward = [
        f"{file.relative_to(PACKAGE)} imports {module}"
        for file in files
        for module in imported(file)
        if unit(module) != name
        and not (module == "fastconv" and name == "cli")  # the public interface
        and RANK.get(unit(module), -1) <= RANK[name]
    ]
    assert not upward


def test_every_module_has_its_tier():
    assert RANK.keys() >= UNITS


def test_the_reference_backend_leans_on_nothing_but_torch_and_leaves():
    for file in (PACKAGE / "backends" / "reference").glob("*.py"):
        known = ("fastconv.backends", "fastconv.backends.reference")
        own = {unit(m) for m in imported(file) if not m.startswith(known[1]) and m != known[0]}
        assert own <= {"geometry", "histogram", "reduction", "errors"}, file.name


def test_everything_works_without_the_native_library():
    code = (
        "import sys; sys.modules['fastconv._C'] = None\n"
        "import torch, fastconv\n"
        "assert {b for names in fastconv.backends().values() for b in names} == {'reference'}\n"
        "print(fastconv.channel_reduce(torch.ones(2, 3, 4)).sum.sum().item())\n"
        "from fastconv.cli.main import main; main(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("24.0")
    assert "the C++ library cannot be loaded" in done.stdout


@pytest.mark.parametrize("first", ["fastconv.backends.cpu", "fastconv.run.extract", "fastconv"])
def test_public_names_do_not_depend_on_what_was_imported_first(first):
    code = (
        f"import importlib; importlib.import_module({first!r})\n"
        "import fastconv\n"
        "assert 'channel_reduce' in fastconv.backends('cpu')\n"
        "missing = [n for n in fastconv.__all__ if n not in dir(fastconv)]\n"
        "public = [n for n in fastconv.__all__ if n[0] != '_' and n.islower()]\n"
        "modules = [n for n in public if type(getattr(fastconv, n)).__name__ == 'module']\n"
        "modules += [n for n in public if type(getattr(fastconv, n)).__name__ == '_Package']\n"
        "assert not missing and sorted(modules) == ['export', 'insight', 'perturb'], modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
