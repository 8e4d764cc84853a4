import os
import signal

import h5py
import numpy as np
import pytest
import torch
from helpers.networks import datasets, images, network
from torch.utils.data import Dataset

import fastconv
from fastconv.errors import DataError, FileFormatError, FingerprintError, OutputError
from fastconv.run import save_clock
from fastconv.store import parts


def same(out, expected):
    found = datasets(out)
    return found.keys() == expected.keys() and [k for k in found if found[k] != expected[k]] == []


def every_batch(monkeypatch):
    """Save after every batch."""
    for name in ("MIN_SECONDS", "COST_FACTOR", "ELAPSED_SHARE"):
        monkeypatch.setattr(save_clock, name, 0)


class Stubborn(Dataset):
    """Images of which one cannot be read, until told."""

    def __init__(self, broken: int | None):
        self.x, self.broken = images(40), broken

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if index == self.broken:
            raise OSError("bad sector")
        return self.x[index]


def extract(out, broken=None, model=None, **options):
    # thumbnails read samples again at the end, and these tests count what is read
    options = {"batch_size": 8, "progress": False, "thumbnails": False, "order": "both", **options}
    return fastconv.extract(model or network(), Stubborn(broken), out, **options)


@pytest.mark.parametrize("saved", ["every batch", "at the error only"])
def test_a_broken_sample_loses_nothing(tmp_path, monkeypatch, saved):
    extract(tmp_path / "whole.h5")
    if saved == "every batch":
        every_batch(monkeypatch)
    out = tmp_path / "run.h5"
    with pytest.raises(DataError, match=r"sample 30 .*bad sector"):
        extract(out, broken=30)
    assert not out.exists() and list(tmp_path.glob("run.h5.parts/u*.h5"))
    with pytest.raises(FingerprintError, match="topk was 9, now 5"):
        extract(out, topk=5)
    read = []
    monkeypatch.setattr(Stubborn, "__getitem__", lambda self, i: (read.append(i), self.x[i])[1])
    extract(out)
    probed = {round(i) for i in np.linspace(0, 39, 16)}
    assert set(read) - probed == set(range(24, 40)) - probed  # the parts hold what came before
    assert same(out, datasets(tmp_path / "whole.h5"))


def test_a_damaged_part_is_named_and_can_be_made_again(tmp_path, monkeypatch):
    extract(tmp_path / "whole.h5")
    every_batch(monkeypatch)
    out = tmp_path / "run.h5"
    with pytest.raises(DataError):
        extract(out, broken=30)
    part = sorted(tmp_path.glob("run.h5.parts/u*.h5"))[1]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(FileFormatError, match=f"{part.name} is damaged.*delete it"):
        extract(out)
    part.unlink()
    extract(out)
    assert same(out, datasets(tmp_path / "whole.h5"))


def test_resume_can_be_declined(tmp_path, monkeypatch):
    every_batch(monkeypatch)
    out = tmp_path / "run.h5"
    with pytest.raises(DataError):
        extract(out, broken=30)
    extract(out, resume=False, topk=5)
    with fastconv.open(out) as run:
        assert run["0"].topk.values.shape == (8, 5)


def test_two_processes_on_one_output(tmp_path):
    out = tmp_path / "run.h5"
    with fastconv.store.parts.PartsFolder(out), pytest.raises(OutputError, match="another process"):
        extract(out)
    extract(out)


def test_interrupted_after_the_unit(tmp_path, monkeypatch):
    extract(tmp_path / "whole.h5")
    seen = []

    def press(self, index):
        if index == 20 and len(seen) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        if index == 20:
            seen.append(index)
        return self.x[index]

    monkeypatch.setattr(Stubborn, "__getitem__", press)
    out = tmp_path / "run.h5"
    seen.append("probe")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        extract(out)
    assert signal.getsignal(signal.SIGINT) is before
    *_, part = sorted(tmp_path.glob("run.h5.parts/u*.h5"))
    assert "-000002-" in part.name  # the unit of sample 20 was finished, and none after it
    extract(out)
    assert same(out, datasets(tmp_path / "whole.h5"))


def test_a_model_that_fails_in_the_middle(tmp_path, monkeypatch):
    extract(tmp_path / "whole.h5")
    every_batch(monkeypatch)
    out, model = tmp_path / "run.h5", network()
    seen = []

    def fail(module, args):
        seen.append(1)
        if len(seen) == 5:
            raise ValueError("out of luck")

    handle = model[5].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="out of luck"):
        extract(out, model=model)
    handle.remove()
    assert not any(m._forward_hooks for m in model.modules())
    extract(out)
    assert same(out, datasets(tmp_path / "whole.h5"))


def test_an_incomplete_file_is_refused(tmp_path):
    out = tmp_path / "run.h5"
    extract(out).close()
    with h5py.File(out, "r+") as file:
        del file.attrs["complete"]
    with pytest.raises(FileFormatError, match="incomplete"):
        fastconv.open(out)
    with pytest.raises(FileFormatError, match="incomplete"):
        extract(out)


def test_parts_hold_only_hits_that_can_still_win(tmp_path, monkeypatch):
    """The second half holds nothing new: its part has no pictures."""
    every_batch(monkeypatch)
    kept = {}
    original = parts.PartWriter.add_layer

    def spy(self, index, result):
        kept[self.first, index] = int((result.topk["sample"] >= 0).sum())
        return original(self, index, result)

    monkeypatch.setattr(parts.PartWriter, "add_layer", spy)
    data = torch.cat([images(16), images(16) * 0])
    fastconv.extract(
        network(), data, tmp_path / "run.h5", batch_size=16, layers="0", topk=4, progress=False
    )
    assert kept[0, 0] == 8 * 4 and kept[1, 0] < 8 * 4
    assert np.isfinite(fastconv.open(tmp_path / "run.h5")["0"].topk.values).all()
