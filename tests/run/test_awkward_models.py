"""Networks that keep state, draw numbers or hide convolutions: measured right, left as found."""

import copy
import random

import numpy as np
import pytest
import torch
from helpers.awkward_networks import USABLE, AlwaysDrops, SkipsOnSelf, VaryingWidth
from helpers.networks import images, network
from torch import nn

import fastconv
from fastconv.errors import FastconvError, InputError

LAYERS = {
    "bare convolution": ("Conv2d",),
    "functional convolution": ("conv", "conv2d#0"),
    "scripted part": ("0", "conv2d#0", "2"),
    "shared module": ("0", "0#1"),
    "squeeze": ("conv", "last"),
}
QUIET = {"progress": False, "batch_size": 4}


class Untouched:
    """Asserts at the end that a model and the random states are as they were."""

    def __init__(self, model):
        self.model = model

    def look(self):
        attributes = [
            {k: v for k, v in vars(m).items() if not k.startswith("_") and not callable(v)}
            for m in self.model.modules()
            if not isinstance(m, torch.jit.ScriptModule)
        ]
        modes = [(m.training, len(m._forward_hooks)) for m in self.model.modules()]
        numbers = torch.get_rng_state(), random.getstate(), repr(np.random.get_state(legacy=False))
        return copy.deepcopy((self.model.state_dict(), attributes, modes, numbers))

    def __enter__(self):
        self.before = self.look()

    def __exit__(self, kind, error, trace):
        if kind is None:
            state, *others = self.look()
            assert state.keys() == self.before[0].keys()
            assert all(torch.equal(state[k], v) for k, v in self.before[0].items())
            assert torch.equal(others[2][0], self.before[3][0])
            assert others[2][1:] == self.before[3][1:]
            assert others[:2] == list(self.before[1:3])


@pytest.mark.parametrize("name", USABLE)
def test_model_is_measured_verified_and_left_as_found(name, tmp_path):
    torch.manual_seed(0)
    model = USABLE[name]().train()
    x = images(8)
    with Untouched(model):
        run = fastconv.extract(model, x, tmp_path / "run.h5", **QUIET)
        report = fastconv.verify(tmp_path / "run.h5", model, x)
        assert report, report
        again = fastconv.extract(model, x, tmp_path / "run.h5", **QUIET)
    assert again.layers == run.layers
    assert tuple(LAYERS.get(name, run.layers)) == tuple(run.layers)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_second_name_of_a_shared_module_names_the_layer(tmp_path):
    model, x = USABLE["shared module"]().eval(), images(8)
    run = fastconv.extract(model, x, tmp_path / "run.h5", layers="2#1", **QUIET)
    assert tuple(run.layers) == ("2#1",)
    assert fastconv.verify(tmp_path / "run.h5", model, x)
    with torch.no_grad():
        expected = model[:3](x).amax((0, 2, 3))
    np.testing.assert_allclose(run["2#1"].stats["max"], expected, rtol=1e-5)


def test_forward_goes_on_after_one_that_stopped_early(tmp_path):
    model = SkipsOnSelf()
    with Untouched(model):
        fastconv.extract(model, images(12), tmp_path / "run.h5", layers="down.0", **QUIET)
    model(images(2)).sum().backward()


def test_autocast_of_the_caller_does_not_reach_the_run(tmp_path):
    model, x = network(), images(8)
    fastconv.extract(model, x, tmp_path / "plain.h5", **QUIET)
    with torch.autocast("cpu", torch.bfloat16):
        fastconv.extract(model, x, tmp_path / "within.h5", **QUIET)
        assert fastconv.verify(tmp_path / "plain.h5", model, x)
    with fastconv.open(tmp_path / "plain.h5") as a, fastconv.open(tmp_path / "within.h5") as b:
        for name in a.layers:
            np.testing.assert_array_equal(a[name].topk.values, b[name].topk.values)


def test_inference_mode_of_the_caller_leaves_no_inference_tensors(tmp_path):
    model = USABLE["caches elsewhere"]()
    with torch.inference_mode():
        fastconv.extract(model, images(8), tmp_path / "run.h5", **QUIET)
    model(images(2)).sum().backward()


def test_hooks_on_every_module_change_what_is_measured(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    model.eval()
    x = images(8)

    def double(module, args, output):
        return output * 2 if isinstance(module, nn.Conv2d) else None

    handle = nn.modules.module.register_module_forward_hook(double)
    try:
        run = fastconv.extract(model, x, tmp_path / "run.h5", **QUIET)
        report = fastconv.verify(tmp_path / "run.h5", model, x)
        with torch.no_grad():
            expected = model(x).amax((0, 2, 3))
    finally:
        handle.remove()
    assert report, report
    np.testing.assert_allclose(run["3"].stats["max"], expected, rtol=1e-5)


class Scaled(nn.Sequential):
    """Its output is scaled by a random number."""

    def __init__(self, draw):
        super().__init__(nn.Conv2d(3, 4, 3))
        self.draw = draw

    def forward(self, x):
        return super().forward(x) * self.draw()


@pytest.mark.parametrize(
    "model",
    [AlwaysDrops(), Scaled(random.random), Scaled(np.random.rand), Scaled(np.random.randn)],
    ids=["torch", "random", "numpy", "numpy normal"],
)
def test_random_model_is_refused(tmp_path, model):
    with pytest.raises(InputError, match="the model is random in eval mode"):
        fastconv.extract(model, images(8), tmp_path / "run.h5", **QUIET)


def test_batch_of_one_value_for_batch_statistics_is_explained(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 20), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 2, 1)
    )
    with pytest.raises(InputError, match="takes its moments from the batch"):
        fastconv.extract(model, images(5), tmp_path / "run.h5", **QUIET)


def test_kernel_larger_than_the_image_is_explained(tmp_path):
    with pytest.raises(InputError, match=r"\[2, 3, 20, 20\] is too small for the model"):
        fastconv.extract(nn.Conv2d(3, 4, 24), images(5), tmp_path / "run.h5", **QUIET)


def test_convolution_of_varying_width_is_refused(tmp_path):
    x = images(12)
    x[:, 0, 0, 0] = torch.tensor([0.0, 1, 0]).repeat_interleave(4)
    for layers in ("last", None):
        with pytest.raises(FastconvError, match="last gave"):
            fastconv.extract(VaryingWidth(), x, tmp_path / "run.h5", layers=layers, **QUIET)


@pytest.mark.parametrize("how", ["function", "method", "part"])
def test_compiled_models_are_taken_apart(how, tmp_path):
    model, x = network(), images(8)
    plain = fastconv.extract(model, x, tmp_path / "plain.h5", **QUIET)
    if how == "method":
        model.compile(backend="eager")
    elif how == "function":
        model = torch.compile(model, backend="eager")
    else:
        model[3] = torch.compile(model[3], backend="eager")
    with Untouched(model):
        run = fastconv.extract(model, x, tmp_path / "compiled.h5", **QUIET)
        report = fastconv.verify(tmp_path / "plain.h5", model, x)
    assert report, report
    assert run.layers == plain.layers
    for name in run.layers:
        np.testing.assert_array_equal(run[name].topk.values, plain[name].topk.values)


@pytest.mark.parametrize("layers", [["0", "0.0"], ["0", "0.0", "2.0"], ["2", "2.0"]])
def test_modules_around_a_fused_convolution_return_what_they_should(layers, tmp_path):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Sequential(conv, norm), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 3)))
    model.eval()
    x = torch.rand(4, 3, 110, 110) - 0.5  # large enough to run fused
    run = fastconv.extract(model, x, tmp_path / "run.h5", layers=layers, stage="act", **QUIET)
    with torch.no_grad():
        expected = {"0": model[0](x), "0.0": model[:2](x), "2": model(x), "2.0": model(x)}
    for name in layers:
        np.testing.assert_allclose(
            run[name].stats["min"], expected[name].amin((0, 2, 3)), rtol=1e-4, atol=1e-6
        )


def test_hook_on_a_module_around_a_convolution_sees_its_value(tmp_path):
    seen = []
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.ReLU()).eval()
    model[0].register_forward_hook(lambda module, args, output: seen.append(output.min().item()))
    x = torch.rand(4, 3, 110, 110) - 0.5
    fastconv.extract(model, x, tmp_path / "run.h5", layers=["0.0", "1"], stage="act", **QUIET)
    assert seen[-1] < 0
