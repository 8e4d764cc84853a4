"""A run that is resumed as anything else than what it was refuses, and names the difference."""

import shutil

import numpy as np
import pytest
import torch
from helpers.networks import datasets, images, network
from torch import nn
from torch.utils.data import Dataset

import fastconv
from fastconv.errors import DataError, FingerprintError
from fastconv.run import save_clock

LAYERS = ["0", "5", "7"]
OPTIONS = {"layers": LAYERS, "batch_size": 8, "maps": [1, 9], "progress": False}


def as_it_is(output):
    return output


class Pictures(Dataset):
    """Pictures with names and labels; one cannot be read while `broken`."""

    def __init__(self, count=24, *, broken=False, names="abc", transform=None, changed=None):
        self.x, self.broken, self.transform = images(count), broken, transform
        self.keys = [f"{names}{i}.png" for i in range(count)]
        if changed is not None:
            self.x[changed, 2, 19, 19] += 2**-20

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if self.broken and index == 22:
            raise OSError("bad sector")
        x = self.x[index]
        return (x if self.transform is None else self.transform(x)), index % 3


class Described(Pictures):
    """Samples that are dicts with a further column."""

    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return {"image": x, "label": label, "site": "AB"[index % 2]}


def trained_further():
    model = network()
    with torch.no_grad():
        model[5].weight[3, 1, 1, 1] *= 1 + 2**-20
    return model


def moved_statistics():
    model = network()
    model[1].running_mean[2] += 2**-20
    return model


def other_activation():
    model = network()
    model[6] = nn.SiLU()
    return model


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run that was cut short, and the datasets of one that was not."""
    folder = tmp_path_factory.mktemp("begun")
    fastconv.extract(network(), Pictures(), folder / "whole.h5", **OPTIONS).close()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MIN_SECONDS", "COST_FACTOR", "ELAPSED_SHARE"):
            patch.setattr(save_clock, name, 0)
        with pytest.raises(DataError, match="bad sector"):
            fastconv.extract(network(), Pictures(broken=True), folder / "run.h5", **OPTIONS)
    assert len(list(folder.glob("run.h5.parts/u*.h5"))) == 2
    return folder


MODELS = {
    "weights": (trained_further, "model was"),
    "statistics of a norm": (moved_statistics, "model was"),
    "another activation": (other_activation, "graph was"),
}
DATA = {
    "contents": (lambda: Pictures(changed=23), "data.contents_sha256 was"),
    "length": (lambda: Pictures(25), "data.length was 24, now 25"),
    "names": (lambda: Pictures(names="xyz"), "data.keys_sha256 was"),
    "preprocessing": (lambda: Pictures(transform=lambda x: x - 0.5), "data.contents_sha256 was"),
    "size": (
        lambda: Pictures(transform=lambda x: x[:, 1:]),
        r"data.sample_shape was \[3, 20, 20\], now \[3, 19, 20\]",
    ),
    "dtype": (
        lambda: Pictures(transform=lambda x: x.byte()),
        'data.dtype was "float32", now "uint8"',
    ),
    "kind": (lambda: images(24), 'data.kind was "Pictures", now "array"'),
}
CHANGED = {
    "layers": ["0", "5"],
    "stage": "act",
    "topk": 5,
    "hits_per_sample": 2,
    "order": "smallest",
    "stats": False,
    "quantiles": False,
    "patches": False,
    "samples": True,
    "maps": [1, 10],
    "maps_dtype": "uint8",
    "normalize": "l2",
    "batch_size": 12,
    "dtype": "bfloat16",
    "backend": "reference",
    "shard": (0, 2),
    "thumbnails": True,
    "conditions": {"noise": fastconv.perturb.noise(0.1)},
    "outcomes": True,
    "output": as_it_is,
    "columns": ["site"],
}
# what an option needs besides
BESIDE = {"outcomes": {"output": as_it_is}, "output": {"outcomes": True}}


def refused(begun, folder, what, model=network, data=Pictures, **options):
    """Resume, and open, a copy as something else; both refuse and change nothing."""
    shutil.copytree(begun, folder, dirs_exist_ok=True)
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    for out in ("run.h5", "whole.h5"):
        with pytest.raises(FingerprintError, match=f"of another run: .*{what}") as raised:
            fastconv.extract(model(), data(), folder / out, **{**OPTIONS, **options})
        assert "\n" not in str(raised.value)
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before


@pytest.mark.parametrize("case", MODELS)
def test_another_model(begun, tmp_path, case):
    model, what = MODELS[case]
    refused(begun, tmp_path, what, model=model)


@pytest.mark.parametrize("case", DATA)
def test_other_data(begun, tmp_path, case):
    data, what = DATA[case]
    refused(begun, tmp_path, what, data=data)


@pytest.mark.parametrize("option", CHANGED)
def test_other_options(begun, tmp_path, option):
    given = {option: CHANGED[option], **BESIDE.get(option, {})}
    data = Described if option == "columns" else Pictures
    refused(begun, tmp_path, f"{option}.* was", data=data, **given)


def test_every_option_that_decides_the_result_is_tried():
    decides = set(fastconv.run.options.Options.__dataclass_fields__)
    assert decides | {"layers"} == set(CHANGED)


def test_other_software_may_not_finish_what_was_begun(begun, tmp_path, monkeypatch):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(FingerprintError, match=r'made_by.torch was "2.*", now "1.0"'):
        fastconv.extract(network(), Pictures(), tmp_path / "run.h5", **OPTIONS)
    fastconv.extract(network(), Pictures(), tmp_path / "whole.h5", **OPTIONS)  # it is finished


def test_the_same_call_goes_on_and_ends_as_one_never_cut_short(begun, tmp_path):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    fastconv.extract(network(), Pictures(), tmp_path / "run.h5", **OPTIONS)
    whole, found = (datasets(tmp_path / name) for name in ("whole.h5", "run.h5"))
    assert found.keys() == whole.keys() and [k for k in whole if whole[k] != found[k]] == []
    assert np.isfinite(fastconv.open(tmp_path / "run.h5")["5"].map(9)).all()
