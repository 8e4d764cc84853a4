import h5py
import numpy as np
import pytest
import torch
from helpers.networks import images, network
from torch import nn

import fastconv
from fastconv import dispatch
from fastconv.backends import cpu
from fastconv.errors import FileFormatError, FingerprintError, InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its data, and the file of a run over them."""
    out = tmp_path_factory.mktemp("verify") / "run.h5"
    model, data = network(), images(40)
    fastconv.extract(model, data, out, batch_size=16, order="both", samples=True, progress=False)
    return model, data, out


@pytest.fixture
def file(made, tmp_path):
    """A copy to spoil."""
    copy = tmp_path / "copy.h5"
    copy.write_bytes(made[2].read_bytes())
    return copy


def failed(report):
    assert not report.ok and not report
    return names_of_failed(report)


def names_of_failed(report):
    return {check.name for check in report.checks if not check.ok}


def test_a_good_file_passes(made):
    model, data, out = made
    report = fastconv.verify(out, model, data)
    assert report.ok and "everything holds" in str(report)
    hits = [check for check in report.checks if check.name.endswith("hits")]
    assert len(hits) == 10 and all("bit for bit" in check.detail for check in hits)
    assert sum("float64" in check.detail for check in hits) == 8  # all but the transposed one
    filters = (c for c in (8, 8, 8, 12, 5) for order in (0, 1))
    assert all(f"{9 * c} recomputed" in h.detail for c, h in zip(filters, hits, strict=True))


def test_a_part_of_the_hits(made):
    model, data, out = made
    report = fastconv.verify(out, model, data, hits=5)
    assert report.ok and "5 recomputed" in str(report)
    with pytest.raises(InputError, match="at least 1"):
        fastconv.verify(out, model, data, hits=0)


@pytest.mark.parametrize(
    ("name", "at", "check"),
    [
        ("topk/value", (3, 4), "hits"),
        ("topk/position", (3, 4, 1), "hits"),
        ("topk/sample", (3, 4), "hits"),
        ("topk/box", (3, 4, 0, 1), "hits"),
        ("patches/row", (3, 4), "hits"),
        ("bottomk/value", (3, 4), "bottomk hits"),
        ("bottomk/sample", (3, 4), "bottomk hits"),
        ("bottomk_patches/row", (3, 4), "bottomk hits"),
        ("weights/weight", (1, 0, 2, 2), "weights"),
        ("stats/mean", (2,), "statistics"),
        ("stats/var", (2,), "statistics"),
        ("merge/sum", (2, 40), "statistics"),
        ("histogram/counts", (2, 1500), "statistics"),
        ("samples/max", (7, 3), None),
    ],
)
@pytest.mark.parametrize("with_checksum", [False, True])
def test_one_change_by_hand_is_found(made, file, name, at, check, with_checksum):
    """By the checksums, and where somebody mended those too, by recomputing."""
    model, data, _ = made
    with h5py.File(file, "r+") as opened:
        dataset = opened[f"run/layers/3.conv/{name}"]
        dataset[at] = dataset[at] + 1
        if with_checksum:
            del dataset.attrs["crc32"]
    found = names_of_failed(fastconv.verify(file, model, data))
    if not with_checksum:
        assert "checksums" in found
    if check is not None:
        assert f"3.conv {check}" in found


def test_a_tie_moved_to_a_later_position_is_found(tmp_path):
    """A dead filter is 0 everywhere: its hit belongs to the first position."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    out = tmp_path / "run.h5"
    fastconv.extract(model, images(10), out, progress=False)
    assert fastconv.verify(out, model, images(10))
    with h5py.File(out, "r+") as opened:
        group = opened["run/layers/0"]
        group["topk/position"][0, 0] = [3, 3]
        group["topk/box"][0, 0] = [[3, 4], [3, 4]]
    report = fastconv.verify(out, model, images(10))
    assert "position of filter 0 rank 0" in str(report)


def test_another_model_or_data_fails(made, file):
    model, data, _ = made
    other = network(seed=5)
    assert {"fingerprint", "0 weights", "0 hits"} <= failed(fastconv.verify(file, other, data))
    assert "fingerprint" in failed(fastconv.verify(file, model, images(40, seed=9)))


def test_what_cannot_be_read_raises(made, tmp_path):
    model, data, _ = made
    (tmp_path / "x.h5").write_bytes(b"nothing")
    with pytest.raises(FileFormatError):
        fastconv.verify(tmp_path / "x.h5", model, data)


@pytest.mark.parametrize("stage", ["norm", "act"])
@pytest.mark.parametrize("order", ["both", "smallest"])
def test_other_stages_orders_and_several_hits(tmp_path, stage, order):
    model, data, out = network(), images(20), tmp_path / "run.h5"
    options = {"stage": stage, "order": order, "hits_per_sample": 2, "progress": False}
    fastconv.extract(model, data, out, **options)
    report = fastconv.verify(out, model, data)
    assert report.ok, str(report)


def test_other_software_is_given_a_tolerance(made, file, monkeypatch):
    model, data, _ = made
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER")
    report = fastconv.verify(file, model, data)
    assert report.ok and "within the rounding of other software" in str(report)
    with h5py.File(file, "r+") as opened:
        opened["run/layers/5/topk/value"][0, 0] *= np.float32(1.01)
    assert "5 hits" in failed(fastconv.verify(file, model, data))


class Standardised(nn.Conv2d):
    """Convolves with other weights than its own."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias)


def doubled():
    conv = nn.Conv2d(4, 4, 1)
    conv.register_forward_hook(lambda module, args, output: output * 2)
    return conv


@pytest.mark.parametrize(
    "second",
    [
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardsigmoid()),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.SiLU()),
        lambda: Standardised(4, 4, 3),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
        doubled,
    ],
    ids=["other activation", "other norm", "other weights", "parametrised", "hook"],
)
def test_what_is_no_plain_convolution_passes_too(tmp_path, second):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), second(), nn.Conv2d(4, 2, 1))
    fastconv.extract(model, images(20), tmp_path / "run.h5", stage="act", progress=False).close()
    report = fastconv.verify(tmp_path / "run.h5", model, images(20))
    assert report, str(report)
    assert sum("float64" in check.detail for check in report.checks) in (2, 3)


MACHINES = {
    "cpu_capability": (torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER"),
    "isa": (cpu, "isa", lambda: "another"),
    "backends": (
        dispatch,
        "backends",
        lambda device: {op: ["other", "cpu"] for op in dispatch.OPS},
    ),
    "threads": (torch, "get_num_threads", lambda: 77),
}


@pytest.mark.parametrize("key", MACHINES)
def test_another_machine_is_told_apart(key, made, tmp_path, monkeypatch):
    """Its bits may differ: verify allows for rounding, resume and merge refuse, naming the key."""
    model, data, out = made
    shards = [tmp_path / f"{i}.h5" for i in (0, 1)]
    given = {"batch_size": 16, "progress": False, "layers": ["0"], "patches": False}
    fastconv.extract(model, data, shards[0], shard=(0, 2), **given).close()
    monkeypatch.setattr(*MACHINES[key])
    report = fastconv.verify(out, model, data, hits=3)
    assert report.ok and "within the rounding of other software" in str(report)
    fastconv.extract(model, data, shards[1], shard=(1, 2), **given).close()
    with pytest.raises(FingerprintError, match=key):
        fastconv.merge(shards, tmp_path / "merged.h5")


def test_subnormal_values_are_within_the_bound(tmp_path):
    """Kernels may flush them to zero, as the inputs and weights they come from."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-21)
    data = images(6) * 1e-19
    fastconv.extract(model, data, tmp_path / "run.h5", batch_size=4, progress=False)
    assert fastconv.verify(tmp_path / "run.h5", model, data).ok


def test_weights_that_are_nan_are_those_of_the_model(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        model[0].weight[1] = torch.nan
    fastconv.extract(model, images(6), tmp_path / "run.h5", progress=False)
    assert fastconv.verify(tmp_path / "run.h5", model, images(6)).ok
