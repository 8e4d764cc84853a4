"""Layers that run fused with their reductions: which, with what result, and what is left behind."""

import copy

import numpy as np
import pytest
import torch
from helpers.networks import Residual, images, network, with_moments
from torch import nn

import fastconv
from fastconv.capture import capture_forward, plan_capture
from fastconv.run import plan as planner
from fastconv.run.fused import run_fused

FUSED = planner.FUSED


class Branches(nn.Module):
    """Two convolutions that end side by side, and a third before them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.a, self.b = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(6, 7, 1)

    def forward(self, x):
        x = self.stem(x)
        return torch.cat([self.a(x), self.b(x)], 1)


def residual():
    torch.manual_seed(4)
    return with_moments(
        nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.GELU(),
            Residual(8),
            nn.Conv2d(8, 4, 1),
            nn.ReLU(),
        )
    )


def ops(run):
    return {name: run[name].info.measured_by for name in run.layers}


def extract(model, out, data=None, **options):
    data = images(40) if data is None else data
    options = {"batch_size": 16, "samples": True, "progress": False, **options}
    return fastconv.extract(model, data, out, **options)


@pytest.fixture
def everywhere(monkeypatch):
    """Run fused whatever can."""
    monkeypatch.setattr(planner, "_pays", lambda target, options: target.fusion is not None)


def assert_same(a, b):
    """Two runs agree but for rounding."""
    assert a.layers == b.layers
    for name in a.layers:
        one, other = a[name], b[name]
        assert one.info.stage == other.info.stage
        for key, value in one.stats.items():
            exact = key in ("count", "nonfinite")
            np.testing.assert_allclose(
                value, other.stats[key], rtol=0 if exact else 1e-3, atol=0 if exact else 2e-4
            )
        np.testing.assert_allclose(one.topk.values, other.topk.values, rtol=1e-4, atol=1e-5)
        assert (one.topk.sample == other.topk.sample).mean() > 0.95  # near ties may swap
        np.testing.assert_allclose(one.samples.max, other.samples.max, rtol=1e-4, atol=1e-5)


def test_the_deepest_convolution_runs_fused(tmp_path):
    model = network()
    with extract(model, tmp_path / "run.h5", layers=["0", "5"]) as run:
        assert ops(run) == {"0": "channel_reduce", "5": FUSED}
        with extract(model, tmp_path / "plain.h5", layers=["0", "5"], backend="reference") as plain:
            assert ops(plain) == {"0": "channel_reduce", "5": "channel_reduce"}
            assert_same(run, plain)
    assert fastconv.verify(tmp_path / "run.h5", model, images(40))


@pytest.mark.parametrize("stage", ["conv", "norm", "act"])
def test_norm_and_activation_are_applied_where_an_output_is_reduced(tmp_path, stage):
    model, data = residual(), images(40)
    with extract(model, tmp_path / "run.h5", stage=stage) as run:
        assert [n for n, op in ops(run).items() if op == FUSED] == ["4"]
        reference = {"stage": stage, "backend": "reference"}
        with extract(model, tmp_path / "plain.h5", **reference) as plain:
            assert_same(run, plain)
            kernels = [r.config["fingerprint"]["kernels"] for r in (run, plain)]
            assert "channel_reduce in place" in kernels[0]
            assert set(kernels[1]) == {"channel_reduce"}
    report = fastconv.verify(tmp_path / "run.h5", model, data)
    assert report, str(report)
    assert "bit for bit" in str(report)


def test_fewer_products_make_it_pay(tmp_path):
    """3x3 by Winograd's tiles; with a stride there are none."""
    torch.manual_seed(2)
    layers = [nn.Conv2d(3, 32, 1), nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU()]
    model = with_moments(
        nn.Sequential(*layers, nn.Conv2d(48, 32, 3, stride=2), nn.Conv2d(32, 4, 1))
    )
    with extract(model, tmp_path / "run.h5") as run:
        assert [n for n, op in ops(run).items() if op == FUSED] == ["1", "5"]
        with extract(model, tmp_path / "plain.h5", backend="reference") as plain:
            assert_same(run, plain)
    report = fastconv.verify(tmp_path / "run.h5", model, images(40))
    assert report, str(report)
    assert "bit for bit" in str(report)


def test_very_many_channels_run_by_themselves(tmp_path):
    many = nn.Sequential(nn.Conv2d(3, planner.COUNTED_AT_ONCE + 1, 1))
    with extract(many, tmp_path / "many.h5", patches=False) as run:
        assert ops(run) == {"0": "channel_reduce"}


def test_ends_of_branches_run_fused(tmp_path):
    torch.manual_seed(0)
    model = Branches()
    with extract(model, tmp_path / "run.h5") as run:
        assert ops(run) == {"stem": "channel_reduce", "a": FUSED, "b": FUSED}
        with extract(model, tmp_path / "plain.h5", backend="reference") as plain:
            assert_same(run, plain)
    assert fastconv.verify(tmp_path / "run.h5", model, images(40))


@pytest.mark.parametrize("stage", ["conv", "norm", "act"])
@pytest.mark.parametrize("hits_per_sample", [1, 3])
def test_the_network_goes_on_with_what_fused_layers_return(
    tmp_path, everywhere, stage, hits_per_sample
):
    model = residual()
    options = {"stage": stage, "hits_per_sample": hits_per_sample, "maps": [1, 17, 39]}
    with extract(model, tmp_path / "run.h5", **options) as run:
        fused = {name for name, op in ops(run).items() if op == FUSED}
        assert {"0", "3.conv", "4"} <= fused
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planner, "_pays", lambda *_: False)
            plain = extract(model, tmp_path / "plain.h5", **options)
        with plain:
            assert set(ops(plain).values()) == {"channel_reduce"}
            assert_same(run, plain)
            for name in run.layers:
                for sample in (1, 17, 39):
                    np.testing.assert_allclose(
                        run[name].map(sample), plain[name].map(sample), rtol=2e-3, atol=1e-4
                    )
    report = fastconv.verify(tmp_path / "run.h5", model, images(40))
    assert report, str(report)
    assert "bit for bit" in str(report)


@pytest.mark.parametrize("stage", ["conv", "norm"])
def test_the_network_goes_on_with_more_than_is_measured(tmp_path, everywhere, stage):
    """Measured is the convolution, or its norm; the network gets the activation of that."""
    model, data = network(), images(40)
    fusion = plan_capture(model, data[:1], stage=stage)[0].fusion
    assert fusion.post_ops.activation == "relu"
    assert len(fusion.absorbed) == 2
    with extract(model, tmp_path / "run.h5", data, stage=stage) as run:
        assert ops(run)["0"] == FUSED
        with extract(model, tmp_path / "plain.h5", data, stage=stage, backend="reference") as plain:
            assert_same(run, plain)
    report = fastconv.verify(tmp_path / "run.h5", model, data)
    assert report, str(report)
    assert "bit for bit" in str(report)


def test_hooks_of_the_norm_are_not_passed_by():
    for hook in ("register_forward_hook", "register_forward_pre_hook"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        getattr(model[1], hook)(lambda *_: None)
        assert plan_capture(model, images(1))[0].fusion.absorbed == ()


def test_verify_notices_one_changed_weight_of_a_fused_layer(tmp_path):
    torch.manual_seed(0)
    model = Branches()
    extract(model, tmp_path / "run.h5").close()
    with torch.no_grad():
        model.a.weight[2, 3, 1, 1] += 0.01
    assert not fastconv.verify(tmp_path / "run.h5", model, images(40))


def test_lists_of_both_orders_take_layers_apart(tmp_path):
    """A kernel makes the lists of one order."""
    several = {"model": Branches(), "hits_per_sample": 2, "samples": False}
    assert FUSED in ops(extract(out=tmp_path / "one.h5", **several)).values()
    both = extract(out=tmp_path / "both.h5", order="both", **several)
    assert set(ops(both).values()) == {planner.SEPARATE}
    one = extract(Branches(), tmp_path / "single.h5", order="both", samples=False)
    assert FUSED in ops(one).values()


def test_the_bits_do_not_depend_on_workers_or_shards(tmp_path):
    model, data = Branches(), images(40)
    with extract(model, tmp_path / "whole.h5", data) as whole:
        for i in range(2):
            extract(model, tmp_path / f"{i}.h5", data, shard=(i, 2)).close()
        with fastconv.merge([tmp_path / "0.h5", tmp_path / "1.h5"], tmp_path / "m.h5") as merged:
            for name in whole.layers:
                assert np.array_equal(whole[name].topk.values, merged[name].topk.values)
                assert np.array_equal(whole[name].stats["mean"], merged[name].stats["mean"])
                assert ops(whole) == ops(merged)


class Shouting(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


def spoilt(kind):
    """A convolution at the end that must not be replaced."""
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect" if kind == "reflect" else "zeros")
    if kind == "subclass":
        conv = Shouting(3, 4, 3)
    if kind == "hook":
        conv.register_forward_hook(lambda module, args, output: output * 2)
    if kind == "forward":
        original = conv.forward
        conv.forward = lambda x: original(x) * 2
    if kind == "parametrised":
        nn.utils.parametrizations.weight_norm(conv)
    if kind == "half":
        conv = conv.bfloat16()
    return nn.Sequential(conv, nn.Flatten())


@pytest.mark.parametrize("kind", ["reflect", "subclass", "hook", "forward", "parametrised", "half"])
def test_what_is_not_a_plain_convolution_runs_by_itself(tmp_path, kind):
    model = spoilt(kind)
    data = images(9).bfloat16() if kind == "half" else images(9)
    with torch.no_grad():
        expected = (
            copy.deepcopy(model)[0](data).float().amax((0, 2, 3))
            if kind != "forward"
            else (model[0](data).amax((0, 2, 3)))
        )
    with extract(model, tmp_path / "run.h5", data) as run:
        assert ops(run) == {"0": "channel_reduce"}
        np.testing.assert_allclose(run["0"].stats["max"], expected, rtol=1e-2)


def test_a_norm_that_something_else_reads_is_not_taken_over(everywhere):
    class Peeking(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.last = (
                nn.Conv2d(3, 4, 3),
                nn.BatchNorm2d(4),
                nn.Conv2d(4, 2, 1),
            )

        def forward(self, x):
            x = self.conv(x)
            return self.last(self.bn(x) + x)

    model = Peeking().eval()
    assert plan_capture(model, images(1), stage="norm")[0].fusion is None
    assert plan_capture(model, images(1), stage="conv")[0].fusion.absorbed == ()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    measured_after = plan_capture(model, images(1), stage="norm")[0].fusion
    assert measured_after.absorbed == ((model[1], 0),)
    assert measured_after.post_ops is None
    measured_before = plan_capture(model, images(1), stage="conv")[0].fusion
    assert measured_before.absorbed == ((model[1], 0),)
    assert measured_before.post_ops.scale is not None
    assert measured_before.up_to_the_stage().absorbed == ()
    # the norm is a layer of its own
    assert plan_capture(model, images(1), ["0", "1", "2"], stage="norm")[0].fusion is None


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    model = residual()
    targets = plan_capture(model, images(1), stage="act")
    fused = [i for i, target in enumerate(targets) if target.fusion is not None]
    assert fused
    before = {name: set(vars(module)) for name, module in model.named_modules()}

    def convolve(i, x):
        if fails and i == fused[-1]:
            raise ValueError("on purpose")
        return run_fused(
            targets[i], x, histogram=False, return_activation=True, backend="auto"
        ).activation

    def run():
        capture_forward(model, targets, images(4), lambda i, value: None, fused, convolve)

    if fails:
        with pytest.raises(ValueError, match="on purpose"):
            run()
    else:
        run()
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert all(not module._forward_hooks for module in model.modules())


def test_a_value_that_nobody_should_read_cannot_be_read():
    model = Branches()
    targets = plan_capture(model, images(1))
    seen = []

    class Reader(Branches):
        def forward(self, x):
            y = self.a(self.stem(x))
            seen.append(y.device.type)
            return y + self.stem(x)

    model.__class__ = Reader
    with pytest.raises(RuntimeError):
        capture_forward(model, targets, images(2), lambda i, v: None, [1, 2], lambda i, x: None)
    assert seen == ["meta"]
