"""The effective field against theory, and against the whole Jacobian."""

import numpy as np
import pytest
import torch
from helpers.planted import convolution, noise
from torch import nn

import fastconv
from fastconv.errors import InputError


def stack(rank, depth, kernel=3, channels=1):
    kernels = np.ones((1, 1, *(kernel,) * rank))
    return nn.Sequential(*[convolution(kernels, padding=kernel // 2) for _ in range(depth)])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_stack_of_uniform_kernels_is_binomial(rank):
    # variances of the kernels add up: depth (k^2 - 1) / 12, Luo et al., section 2.2
    depth = 4
    table = fastconv.insight.effective_field(stack(rank, depth), noise(4, 1, *(15,) * rank))
    assert list(table.columns) == ["layer", "size", "sigma", "theoretical", "share"]
    for number, row in enumerate(table.to_dict("records"), 1):
        assert row["sigma"] == pytest.approx(np.sqrt(number * 8 / 12), abs=1e-6)
        assert row["theoretical"] == 2 * number + 1
        profile = np.ones(1)
        for _ in range(number):
            profile = np.convolve(profile, np.ones(3))
        whole = profile
        for _ in range(rank - 1):
            whole = np.multiply.outer(whole, profile)
        size = (whole > 0.0455 * whole.max()).sum() ** (1 / rank)
        assert row["size"] == pytest.approx(size)
        assert row["share"] == pytest.approx(size / (2 * number + 1))


def test_the_share_falls_with_depth_as_one_over_its_root():
    table = fastconv.insight.effective_field(stack(1, 40), noise(2, 1, 101))
    share = table["share"].to_numpy()
    assert share[0] == 1
    assert share[-1] == pytest.approx(share[9] / 2, rel=0.1)  # 40 layers, against 10


def test_it_is_the_root_mean_square_of_the_jacobian_where_filters_do_not_mix():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 1, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(1, 1, 5))
    data = noise(6, 2, 12, 12)
    total = np.zeros((12, 12))
    for x in data:
        jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None])[0, 0, 4, 4], x)
        total += jacobian.double().square().sum(0).numpy()
    profile = np.sqrt(total)
    row = fastconv.insight.effective_field(model, data, layers="2").iloc[0]
    size = (profile > (1 - 0.9545) * profile.max()).sum() ** 0.5
    assert row["size"] == pytest.approx(size)
    spreads = []
    for axis in (0, 1):
        along = profile.sum(axis) / profile.sum()
        place = np.arange(12)
        spreads.append(np.sqrt(along @ (place - along @ place) ** 2))
    assert row["sigma"] == pytest.approx(np.sqrt(np.prod(spreads)), rel=1e-6)


def test_opposite_filters_do_not_cancel():
    kernel = np.random.default_rng(0).normal(size=(1, 1, 3, 3))
    model = nn.Sequential(convolution(np.concatenate([kernel, -kernel, kernel, -kernel])))
    assert fastconv.insight.effective_field(model, noise(3, 1, 9, 9))["size"][0] > 2


def test_a_narrow_kernel_uses_little_of_a_large_field():
    kernel = np.zeros((1, 1, 9, 9))
    kernel[..., 3:6, 3:6] = 1
    model = nn.Sequential(convolution(kernel))
    table = fastconv.insight.effective_field(model, noise(3, 1, 20, 20))
    assert table.loc[0, ["size", "theoretical"]].tolist() == [3, 9]
    assert table["share"][0] == pytest.approx(1 / 3)


def test_a_dead_layer_has_no_field():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    with torch.no_grad():
        model[0].bias.fill_(-1e3)
    table = fastconv.insight.effective_field(model, noise(3, 1, 9, 9))
    assert table.loc[1, ["size", "sigma", "share"]].tolist() == [0, 0, 0]


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 1, 3))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fastconv.insight.effective_field(model, noise(3, 1, 9, 9))
    assert model.training and all(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_what_has_no_gradient_or_no_positions_says_so():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)

        def forward(self, x):
            with torch.no_grad():
                return self.conv(x)

    with pytest.raises(InputError, match="no gradient of conv reaches the input"):
        fastconv.insight.effective_field(Frozen(), noise(2, 1, 9, 9))
    flat = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(49, 3))
    with pytest.raises(InputError, match="spatial dimensions"):
        fastconv.insight.effective_field(flat, noise(2, 1, 9, 9), layers="2")
    with pytest.raises(InputError, match="samples must be 1 or more"):
        fastconv.insight.effective_field(flat, noise(2, 1, 9, 9), samples=0)
