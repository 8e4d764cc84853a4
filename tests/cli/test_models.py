import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from fastconv.cli.models import call_factory, load_weights, open_model
from fastconv.errors import InputError


def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "helper_of_net.py").write_text("WIDTH = 5\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "from helper_of_net import WIDTH\n"
        "def build(): return nn.Conv2d(1, WIDTH, 3)\n"
        "ready = nn.Conv2d(1, 7, 3)\n"
        "def wrong(): return 3\n"
        "def broken():\n"
        "    return 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "net", raising=False)
    return tmp_path


@pytest.mark.parametrize("spec", ["net.py:build", "net:build"])
def test_factories_of_files_and_packages(folder, spec):
    model = open_model(spec, None)
    assert model.out_channels == 5
    again = open_model(spec, None)
    assert torch.equal(model.weight, again.weight)  # random, but the same each time


def test_a_ready_model_is_taken_as_it_is(folder):
    assert open_model("net.py:ready", None).out_channels == 7


WRONG = {
    "resnet18": "MODEL must be file.py:factory",
    "none.py:build": "there is no file none.py",
    "net.py:built": "no 'built'; near: build",
    "net.py:wrong": "gives a int, not a torch.nn.Module",
    "net.py:broken": r"ZeroDivisionError: division by zero \(net.py line 7\)",
    "no_such_package.x:build": "ModuleNotFoundError: No module named 'no_such_package'",
}


@pytest.mark.parametrize("spec", WRONG)
def test_wrong_models_say_what_to_do(folder, spec):
    with pytest.raises(InputError, match=WRONG[spec]):
        open_model(spec, None)


def test_torchvision_and_timm_by_name(monkeypatch, capsys):
    models = ModuleType("torchvision.models")
    models.list_models = lambda: ["resnet18", "vgg11"]
    models.get_model = lambda name, weights: net()
    timm = ModuleType("timm")
    timm.is_model, timm.list_models = "convnext_tiny".__eq__, lambda: ["convnext_tiny"]
    timm.create_model = lambda name, pretrained: net()
    for module in (ModuleType("torchvision"), models, timm):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert isinstance(open_model("torchvision:resnet18", None), nn.Sequential)
    assert isinstance(open_model("timm:convnext_tiny", None), nn.Sequential)
    assert "weights are random" in capsys.readouterr().err
    with pytest.raises(InputError, match="torchvision has no model 'resnet19'; near: resnet18"):
        open_model("torchvision:resnet19", None)
    with pytest.raises(InputError, match="timm has no model 'convnext'"):
        open_model("timm:convnext", None)


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'fastconv\[models\]'"):
        open_model("timm:resnet18", None)


WRAPPED = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "args": {"lr": 0.1}},
    "module.": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "_orig_mod.": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "old": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_checkpoints_of_every_usual_shape(tmp_path, kind):
    source, model = net(), net()
    torch.save(WRAPPED[kind](source.state_dict()), tmp_path / "c.pt")
    load_weights(model, tmp_path / "c.pt")
    assert torch.equal(model[0].weight, source[0].weight)


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    source, model = net(), net()
    save_file(source.state_dict(), tmp_path / "c.safetensors")
    load_weights(model, tmp_path / "c.safetensors")
    assert torch.equal(model[0].weight, source[0].weight)
    (tmp_path / "d.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_weights(model, tmp_path / "d.safetensors")


def test_a_checkpoint_that_does_not_fit_names_the_entries(tmp_path):
    state = net().state_dict()
    state["head.weight"] = state.pop("0.bias")
    state["0.weight"] = torch.zeros(2, 3, 3, 3)
    torch.save(state, tmp_path / "c.pt")
    model = net()
    before = model[0].weight.clone()
    with pytest.raises(InputError) as caught:
        load_weights(model, tmp_path / "c.pt")
    assert str(caught.value).endswith(
        "1 missing: 0.bias; 1 unexpected: head.weight; "
        "1 of another shape: 0.weight [2, 3, 3, 3] (the model has [2, 1, 3, 3])"
    )
    assert torch.equal(model[0].weight, before)


class Surprise:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    torch.save({"state_dict": net().state_dict(), "extra": Surprise()}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="cannot be loaded safely") as caught:
        load_weights(net(), tmp_path / "c.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", [1, 2], {"a": 1}, "missing"], ids=str)
def test_files_that_are_no_checkpoint(tmp_path, content):
    file = tmp_path / "c.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content != "missing":
        torch.save(content, file)
    with pytest.raises(InputError, match=r"c\.pt"):
        load_weights(net(), file)


def test_a_factory_needs_a_place_and_a_name():
    for spec in ("build", ":build", "net.py:"):
        with pytest.raises(InputError, match=r"file\.py:factory"):
            call_factory(spec, "DATA")
