"""Every example in a docstring runs, and shows what it says."""

import doctest
import importlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import fastconv

PACKAGE = Path(fastconv.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text()
]
SHOWN = (
    *("Run", "Layer", "Report", "Reduction", "TopK"),
    *("channel_reduce", "conv_reduce", "histogram_edges", "topk_merge"),
)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The run that examples call `example`: six filters over eight small images."""
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 6, 3)))
    path = tmp_path_factory.mktemp("example") / "run.h5"
    data = TensorDataset(torch.rand(8, 3, 9, 9), torch.arange(8) % 3)
    scores = {"outcomes": True, "output": lambda found: found.amax((2, 3))}
    fastconv.extract(model, data, path, topk=4, progress=False, **scores).close()
    return path


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write a file
    torch.manual_seed(0)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    names = {"example": example}
    module = importlib.import_module(name)
    failed, attempted = doctest.testmod(module, extraglobs=names, optionflags=flags)
    assert attempted and not failed


@pytest.mark.parametrize("name", SHOWN)
def test_public_names_have_an_example(name):
    assert ">>>" in getattr(fastconv, name).__doc__
