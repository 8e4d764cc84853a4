"""The defects of released peers, one test each, where no other test file has it."""

import numpy as np
import pytest
import torch
from helpers.networks import images, network
from torch import nn

import fastconv
from fastconv.errors import FingerprintError


def run(out, model, data, **options):
    return fastconv.extract(model, data, out, **{"progress": False, "batch_size": 8, **options})


class Scaled(nn.Module):
    def forward(self, x):
        return x * 1.0


def test_trap_1_variance_when_batch_means_differ(tmp_path):
    """A class-sorted loader: every batch has its own mean."""
    data = torch.cat([torch.full((8, 1, 4, 4), float(m)) for m in (0, 3, 6, 9)])
    data += torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float16):
        given = data.to(dtype)
        out = run(tmp_path / f"{dtype}.h5", nn.Sequential(Scaled()), given, layers="0")
        expected = given.double().var(correction=0).item()
        assert expected > 10
        np.testing.assert_allclose(out["0"].stats["var"], expected, rtol=1e-12)


def test_trap_3_values_are_not_kept_in_bfloat16(tmp_path):
    """Hits that differ by less than bfloat16 resolves stay in the right order."""
    data = torch.zeros(64, 1, 4, 4)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    data[order, 0, 1, 2] = 1 + torch.arange(64) * 1e-5
    out = run(tmp_path / "run.h5", nn.Sequential(Scaled()), data, layers="0")
    np.testing.assert_array_equal(out["0"].topk.sample[0], order.flip(0)[:9])


def test_trap_4_a_channel_whose_activations_are_all_negative(tmp_path):
    data = -1 - torch.rand(20, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    layer = run(tmp_path / "run.h5", nn.Sequential(Scaled()), data, layers="0")["0"]
    best, at = data.flatten(2).max(2)
    assert (layer.topk.sample >= 0).all() and (layer.topk.values < 0).all()
    np.testing.assert_array_equal(layer.topk.sample, best.T.argsort(descending=True)[:, :9])
    first = layer.topk.sample[0, 0]
    assert layer.topk.position[0, 0].tolist() == [*divmod(int(at[first, 0]), 5)]
    assert layer.stats["dead"].all() and (layer.stats["positive"] == 0).all()


def test_trap_7_a_killed_run_never_passes_for_a_whole_one(tmp_path):
    """What a failed run leaves is no result: opening it fails, and running again finishes it."""

    class Breaking(torch.utils.data.Dataset):
        broken = True

        def __len__(self):
            return 40

        def __getitem__(self, index):
            if self.broken and index == 30:
                raise OSError("gone")
            return images(40)[index]

    data, out = Breaking(), tmp_path / "run.h5"
    with pytest.raises(fastconv.errors.DataError):
        run(out, network(), data)
    with pytest.raises((fastconv.errors.FileFormatError, FileNotFoundError)):
        fastconv.open(out)
    Breaking.broken = False
    assert (run(out, network(), data)["0"].stats["count"] == 40 * 100).all()


def test_trap_8_results_of_another_model_or_resolution_are_not_returned(tmp_path):
    out, model = tmp_path / "run.h5", nn.Sequential(nn.Conv2d(3, 4, 3))
    run(out, model, images(10))
    with pytest.raises(FingerprintError, match=r"data\."):
        run(out, model, torch.nn.functional.interpolate(images(10), 24))
    with pytest.raises(FingerprintError, match="model was"):
        run(out, nn.Sequential(nn.Conv2d(3, 4, 3)), images(10))
    same_weights = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2))
    same_weights.load_state_dict(model.state_dict())
    with pytest.raises(FingerprintError, match="graph was"):
        run(out, same_weights, images(10))


def test_trap_10_the_k_that_was_asked_for_is_used(tmp_path):
    for k in (1, 4, 25):
        out = run(tmp_path / f"{k}.h5", network(), images(30), topk=k, layers="0")
        assert out["0"].topk.values.shape == (8, k)
        assert out["0"].patches.shape[1] == k
    assert out["0"].quantile([0.1, 0.2, 0.9]).shape == (8, 3)


def test_trap_11_ranking_is_by_the_plain_maximum(tmp_path):
    """No hidden default: a single high value beats a sample that is high everywhere."""
    data = torch.zeros(12, 1, 6, 6)
    data[3] = 0.9  # the largest sum, mean and norm
    data[7, 0, 2, 2] = 1.0
    out = run(tmp_path / "run.h5", nn.Sequential(Scaled()), data, layers="0")
    assert out["0"].topk.sample[0, :2].tolist() == [7, 3]
