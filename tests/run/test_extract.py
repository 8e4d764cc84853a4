"""Everything that `extract` measures, for every kind of input, model and number type."""

import numpy as np
import pytest
import torch
from helpers.extracting import outputs, run
from helpers.networks import datasets, images, network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastconv
from fastconv.errors import FingerprintError, InputError
from fastconv.run import plan as planner

EVERYTHING = {"samples": True, "order": "both", "maps": slice(3, 40, 3), "batch_size": 16}


def test_everything_agrees_with_float64(tmp_path):
    model, data = network(), images(50)
    with run(tmp_path, model=model, data=data, **EVERYTHING) as result:
        assert result.layers == ["0", "3.conv", "3.conv#1", "5", "7"]
        expected = outputs(model, data, result.layers)
        for name in result.layers:
            layer, y = result[name], expected[name]
            flat = y.flatten(2)  # [N, C, P]
            scale = float(y.abs().max())
            stats = layer.stats
            assert (stats["count"] == flat.shape[0] * flat.shape[2]).all()
            assert (stats["nonfinite"] == 0).all()
            np.testing.assert_allclose(stats["mean"], flat.mean((0, 2)), atol=1e-6 * scale)
            np.testing.assert_allclose(
                stats["var"], flat.var((0, 2), correction=0), rtol=1e-5, atol=1e-12
            )
            np.testing.assert_allclose(stats["std"], np.sqrt(stats["var"]))
            np.testing.assert_allclose(stats["min"], flat.amin((0, 2)), atol=1e-5 * scale)
            np.testing.assert_allclose(stats["max"], flat.amax((0, 2)), atol=1e-5 * scale)
            np.testing.assert_allclose(
                stats["positive"], (flat > 0).double().mean((0, 2)), atol=2e-3
            )
            best = flat.amax(2).T  # [C, N]
            values, samples = best.sort(dim=1, descending=True)
            hits = layer.topk
            np.testing.assert_allclose(hits.values, values[:, :9], atol=1e-5 * scale)
            clear = (values[:, :9] - values[:, 1:10]) > 1e-4 * scale  # rank is certain
            clear[:, 1:] &= clear[:, :-1].clone()
            assert (hits.sample == samples[:, :9].numpy())[clear].all()
            for c in range(y.shape[1]):
                for r in range(9):
                    at = (hits.sample[c, r], c, *hits.position[c, r])
                    assert abs(float(y[tuple(at)]) - hits.values[c, r]) < 1e-5 * scale
            np.testing.assert_allclose(layer.samples.max, best.T, atol=1e-5 * scale)
            np.testing.assert_allclose(layer.samples.mean, flat.mean(2), atol=1e-5 * scale)
            for sample in (3, 39):
                np.testing.assert_allclose(layer.map(sample), y[sample], rtol=2**-10, atol=1e-5)
            q = layer.quantile([0.05, 0.5, 0.95])
            exact = np.quantile(
                flat.transpose(0, 1).flatten(1), [0.05, 0.5, 0.95], axis=1, method="inverted_cdf"
            ).T
            np.testing.assert_allclose(q, exact, rtol=layer.quantile_error + 1e-4, atol=1e-5)


def test_patches_are_the_boxes_of_the_input(tmp_path):
    data = images(50)
    with run(tmp_path, data=data) as result:
        layer = result["0"]
        hits = layer.topk
        padded = torch.nn.functional.pad(data, (8, 8, 8, 8))
        for c in range(8):
            (y0, y1), (x0, x1) = hits.box[c, 2]
            crop = padded[hits.sample[c, 2], :, y0 + 8 : y1 + 8, x0 + 8 : x1 + 8]
            picture = (crop * 255).round().byte().permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(layer.patch(c, 2), picture)


def test_same_bytes_for_any_number_of_workers(tmp_path):
    data = TensorDataset(images(50), torch.arange(50) % 7)
    for workers in (0, 2):
        run(tmp_path, f"{workers}.h5", data=data, num_workers=workers, **EVERYTHING)
    first, second = (datasets(tmp_path / f"{w}.h5") for w in (0, 2))
    assert first.keys() == second.keys() and len(first) > 100
    assert [k for k in first if first[k] != second[k]] == []


@pytest.mark.parametrize("count", [2, 3])
def test_merged_shards_have_the_bytes_of_one_run(tmp_path, count):
    data = TensorDataset(images(50), torch.arange(50) % 7)
    run(tmp_path, "whole.h5", data=data, **EVERYTHING)
    names = [f"{i}.h5" for i in range(count)]
    for i, name in enumerate(names):
        run(tmp_path, name, data=data, shard=(i, count), **EVERYTHING)
    fastconv.merge([tmp_path / n for n in reversed(names)], tmp_path / "merged.h5")
    whole, merged = (datasets(tmp_path / f"{n}.h5") for n in ("whole", "merged"))
    assert [k for k in whole if whole[k] != merged.get(k)] == [] and whole.keys() == merged.keys()
    with pytest.raises(InputError, match=r"a list of files, got '.*' alone"):
        fastconv.merge(str(tmp_path / "0.h5"), tmp_path / "merged.h5")
    with pytest.raises(InputError, match="each once"):
        fastconv.merge([tmp_path / names[0]], tmp_path / "half.h5")
    with pytest.raises(InputError, match="not a shard"):
        fastconv.merge([tmp_path / "whole.h5"], tmp_path / "again.h5")


def test_reductions_do_not_depend_on_the_batch_size(tmp_path):
    """A pointwise network gives equal activations in any batch: then all results are equal."""

    class Pointwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, groups=3, bias=False)

        def forward(self, x):
            return x

    class Doubling(nn.Module):
        def forward(self, x):
            return x * 2 - 0.7

    model = nn.Sequential(Doubling())
    found = []
    for size in (1, 7, 64):
        options = {"batch_size": size, "layers": "0", "samples": True, "topk": 12}
        run(tmp_path, f"{size}.h5", model=model, data=images(130), **options)
        found.append(datasets(tmp_path / f"{size}.h5"))
    config = "run/config_json"
    for other in found[1:]:
        assert [k for k in other if k != config and other[k] != found[0][k]] == []


def test_the_model_is_left_as_it_was(tmp_path):
    model = network().train()
    model[1].eval()
    model[3].conv.weight.grad = torch.ones_like(model[3].conv.weight)
    before = {k: (v.clone(), v.stride(), v.dtype) for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    run(tmp_path, model=model)
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        old, stride, dtype = before[key]
        assert torch.equal(value, old) and value.stride() == stride and value.dtype == dtype
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(model[3].conv.weight.grad, torch.ones_like(model[3].conv.weight))


def test_a_finished_file_is_returned_and_never_overwritten(tmp_path):
    model = network()
    run(tmp_path, model=model).close()
    stamp = (tmp_path / "run.h5").stat().st_mtime_ns
    run(tmp_path, model=model)
    assert (tmp_path / "run.h5").stat().st_mtime_ns == stamp
    with pytest.raises(FingerprintError, match="topk was 9, now 4"):
        run(tmp_path, model=model, topk=4)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1
    with pytest.raises(FingerprintError, match="model was"):
        run(tmp_path, model=model)
    assert (tmp_path / "run.h5").stat().st_mtime_ns == stamp
    run(tmp_path, model=model, overwrite=True)
    assert (tmp_path / "run.h5").stat().st_mtime_ns > stamp


def test_stages_and_orders(tmp_path):
    model, data = network(), images(50)
    with run(tmp_path, model=model, data=data, stage="act", order="smallest") as result:
        first = result["0"]
        assert first.info.stage == "act"
        assert (first.stats["min"] == 0).all() and (first.topk.values == 0).all()
        assert (np.diff(first.topk.sample, axis=1) > 0).all()  # ties: the lower sample first
        gelu = torch.nn.functional.gelu(outputs(model, data, ["5"])["5"])
        np.testing.assert_allclose(result["5"].stats["max"], gelu.amax((0, 2, 3)), rtol=1e-4)
    with run(tmp_path, "norm.h5", model=model, data=data, stage="norm") as result:
        y = outputs(model, data, ["1"])["1"]
        np.testing.assert_allclose(result["0"].stats["max"], y.amax((0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("hits_per_sample", [1, 2])
def test_both_orders_are_those_of_two_runs(tmp_path, monkeypatch, hits_per_sample):
    """And one order says how to keep the other."""
    monkeypatch.setattr(planner, "_pays", lambda target, options: False)  # as lists of both need
    options = {"model": network(), "batch_size": 16, "topk": 5, "hits_per_sample": hits_per_sample}
    both, largest, smallest = (
        run(tmp_path, f"{order}.h5", order=order, **options)
        for order in ("both", "largest", "smallest")
    )
    for name in both.layers:
        layer = both[name]
        for found, wanted in ((layer.topk, largest[name]), (layer.bottomk, smallest[name])):
            for array, same in zip(found, wanted.topk, strict=True):
                np.testing.assert_array_equal(array, same)
        np.testing.assert_array_equal(layer.patches[()], largest[name].patches[()])
        np.testing.assert_array_equal(layer.bottomk_patches[()], smallest[name].patches[()])
        picture = layer.patch(3, 1, bottom=True)
        np.testing.assert_array_equal(picture, smallest[name].patch(3, 1))
        np.testing.assert_array_equal(picture, smallest[name].patch(3, 1, bottom=True))
        np.testing.assert_array_equal(smallest[name].bottomk.values, smallest[name].topk.values)
        with pytest.raises(InputError, match=r'kept no bottomk of .*extract it with order="both"'):
            largest[name].bottomk  # noqa: B018
    assert (both.order, largest.order) == ("both", "largest")


def test_several_hits_of_a_sample_keep_their_distance(tmp_path):
    with run(tmp_path, data=images(3), hits_per_sample=4, topk=12) as result:
        hits = result["0"].topk
        assert (hits.sample >= 0).all()
        for c in range(8):
            assert (np.bincount(hits.sample[c], minlength=3) == 4).all()
            for a in range(12):
                for b in range(a):
                    if hits.sample[c, a] == hits.sample[c, b]:
                        gap = np.abs(hits.box[c, a, :, 0] - hits.box[c, b, :, 0]).max()
                        assert gap >= 1.5  # half of the 3-pixel field
        assert (np.diff(hits.values, axis=1) <= 0).all()


def test_a_layer_without_positions_has_one_hit_of_a_sample(tmp_path):
    with run(tmp_path, data=images(9), layers=["9"], hits_per_sample=3, topk=5) as result:
        for row in result["9"].topk.sample:
            assert len(set(row.tolist())) == 5


def test_fewer_samples_than_hits_are_padded(tmp_path):
    with run(tmp_path, data=images(4)) as result:
        hits = result["5"].topk
        assert (np.sort(hits.sample[:, :4], axis=1) == np.arange(4)).all()
        assert (hits.sample[:, 4:] == -1).all() and np.isnan(hits.values[:, 4:]).all()
        assert (result["5"].patches[:, 4:] == 0).all()


def test_nan_and_inf_in_the_data(tmp_path):
    data = images(20)
    data[3] = torch.nan
    data[5, :, 0, 0] = torch.inf
    with run(tmp_path, model=nn.Sequential(nn.Conv2d(3, 4, 1)), data=data, topk=20) as result:
        stats, hits = result["0"].stats, result["0"].topk
        assert (stats["nonfinite"] == 401).all() and (stats["count"] == 20 * 400 - 401).all()
        assert all(np.isfinite(stats[k]).all() for k in ("mean", "var", "min", "max"))
        assert (hits.sample[:, -1] == -1).all() and not (hits.sample == 3).any()


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        (
            (2, 64),
            lambda: nn.Sequential(nn.Conv1d(2, 5, 9, stride=2), nn.ReLU(), nn.Conv1d(5, 3, 5)),
        ),
        ((1, 8, 9, 10), lambda: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU())),
        ((4, 12, 12), lambda: nn.Sequential(nn.Conv2d(4, 6, 5, padding="same"), nn.ReLU())),
    ],
)
def test_other_kinds_of_input(tmp_path, shape, make):
    torch.manual_seed(0)
    model, data = make(), torch.randn(30, *shape)
    with run(tmp_path, model=model, data=data, maps=[0], samples=True) as result:
        for name in result.layers:
            layer = result[name]
            picture = layer.patch(0, 0)
            assert picture.dtype == np.float32 and picture.shape[0] == shape[0]
            box = layer.topk.box[0, 0]
            if (box[:, 0] >= 0).all() and (box[:, 1] <= np.array(shape[1:])).all():
                inside = tuple(slice(a, b) for a, b in box)
                crop = data[(layer.topk.sample[0, 0], slice(None), *inside)]
                np.testing.assert_array_equal(picture, crop)
    assert fastconv.verify(tmp_path / "run.h5", model, data)


def test_a_view_that_channels_last_would_break(tmp_path):
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4 * 18 * 18, 2)

        def forward(self, x):
            y = self.conv(x)
            return self.fc(y.view(len(y), -1))

    torch.manual_seed(0)
    model, data = Viewing(), images(20)
    with run(tmp_path, model=model, data=data, layers="fc") as result:
        assert result.config["fingerprint"]["layout"] == "contiguous_format"
        expected = outputs(model, data, ["fc"])["fc"]
        np.testing.assert_allclose(result["fc"].stats["max"], expected.amax(0), rtol=1e-4)
    assert fastconv.verify(tmp_path / "run.h5", model, data)


def test_bfloat16_by_autocast(tmp_path):
    model, data = network(), images(30)
    with run(tmp_path, model=model, data=data, dtype="bfloat16") as result:
        y = outputs(model, data, ["0"])["0"]
        np.testing.assert_allclose(result["0"].stats["max"], y.amax((0, 2, 3)), rtol=2e-2)
    assert model[0].weight.dtype == torch.float32
    assert fastconv.verify(tmp_path / "run.h5", model, data)


def test_a_shuffled_loader_is_read_in_order(tmp_path):
    data = images(50)
    loader = DataLoader(TensorDataset(data), batch_size=7, shuffle=True)
    first = run(tmp_path, "a.h5", data=data, batch_size=16)
    second = run(tmp_path, "b.h5", data=loader, batch_size=16)
    np.testing.assert_array_equal(first["0"].topk.sample, second["0"].topk.sample)


def test_layers_without_convolution(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1200, 6), nn.ReLU())
    with run(tmp_path, model=model, layers=[nn.ReLU]) as result:
        layer = result["2"]
        assert layer.topk.position.shape == (6, 9, 0)
        assert layer.topk.box[0, 0].tolist() == [[0, 20], [0, 20]]
        assert layer.patch(0, 0).shape == (20, 20, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_dtype(tmp_path, dtype):
    model, data = network().to(dtype), images(20).to(dtype)
    with run(tmp_path, model=model, data=data, layers="0") as result:
        with torch.no_grad():
            value = model.eval()[0](data).double()
        np.testing.assert_allclose(result["0"].stats["max"], value.amax((0, 2, 3)), rtol=1e-2)
        assert np.array_equal(result["0"].weight, model[0].weight.detach().float())
    assert fastconv.verify(tmp_path / "run.h5", model, data)
