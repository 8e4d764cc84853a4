"""Every example in a docstring runs, and shows what it says."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import fastconv

PACKAGE = Path(fastconv.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text()
]
SHOWN = ("Reduction", "TopK", "channel_reduce", "conv_reduce", "histogram_edges", "topk_merge")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write a file
    torch.manual_seed(0)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert attempted and not failed


@pytest.mark.parametrize("name", SHOWN)
def test_public_names_have_an_example(name):
    assert ">>>" in getattr(fastconv, name).__doc__
