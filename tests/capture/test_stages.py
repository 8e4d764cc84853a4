"""The stages of a convolution: its output, after the norm, after the activation."""

import pytest
import torch
import torch.nn.functional as F
from helpers.capturing import captured
from torch import Tensor, nn

from fastconv.capture import plan_capture


def randomise(model: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            nn.init.normal_(m.weight)
            nn.init.normal_(m.bias)
    return model.eval()


def plan(model: nn.Module, stage: str, layers=None):
    return plan_capture(model, torch.randn(2, 3, 8, 9), layers, stage)[0]


def check(model: nn.Module, stage: str, expected: nn.Module, taken: str) -> None:
    """The captured value of the first convolution equals the output of `expected`."""
    x = torch.randn(3, 3, 8, 9)
    model = randomise(model)
    name = plan(model, stage).info.name
    with torch.no_grad():
        value = expected(x)
    torch.testing.assert_close(captured(model, x, name, stage)[name], value)
    assert plan(model, stage).info.stage == taken


ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardswish": nn.Hardswish,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("inplace", [False, True])
def test_known_activations_are_applied_by_name(name, inplace):
    takes_inplace = name not in ("gelu", "sigmoid", "tanh")
    activation = ACTIVATIONS[name](**({"inplace": inplace} if takes_inplace else {}))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), activation)
    check(model, "act", model, "act")
    target = plan(model, "act")
    assert (target.activation, target.module) == (name, model[0])
    assert target.scale.dtype == torch.float32


@pytest.mark.parametrize(
    "activation",
    [
        nn.LeakyReLU(0.2),
        nn.ELU(2.0),
        nn.GELU("tanh"),
        nn.PReLU(4),
        nn.Mish(),
        nn.Hardtanh(-1, 1),
        nn.LogSigmoid(),
        nn.Mish(inplace=True),
        nn.Threshold(0.1, 0.0, inplace=True),
    ],
    ids=str,
)
def test_other_activation_modules_are_hooked(activation):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), activation)
    check(model, "act", model, "act")
    target = plan(model, "act")
    assert (target.activation, target.scale, target.module) == (None, None, activation)


def test_custom_activation_module_is_not_mistaken_for_its_first_operation():
    class Swish(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Swish())
    check(model, "act", model, "act")


def test_batch_norm_becomes_scale_and_shift_of_the_hooked_convolution():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    check(model, "norm", model[:2], "norm")
    target = plan(model, "norm")
    assert (target.module, target.activation) == (model[0], None)


def test_batch_norm_without_affine():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False))
    torch.manual_seed(0)
    model[1].running_mean.normal_()
    x = torch.randn(3, 3, 8, 9)
    expected = model.eval()(x).detach()
    torch.testing.assert_close(captured(model, x, stage="norm")["0"], expected)


def test_functional_batch_norm_and_activation():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            bn = self.bn
            y = F.batch_norm(self.conv(x), bn.running_mean, bn.running_var, bn.weight, bn.bias)
            return F.leaky_relu_(y)

    model = Block()
    check(model, "act", model, "act")
    assert plan(model, "act").activation == "leaky_relu"


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return super().forward(x).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("norm", "status"),
    [
        (nn.GroupNorm(2, 4), "global"),
        (nn.InstanceNorm2d(4), "global"),
        (nn.BatchNorm2d(4, track_running_stats=False), "global"),
        (ChannelNorm(4), "exact"),
    ],
)
def test_other_norm_modules_are_hooked(norm, status):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Dropout2d(), nn.Sequential(norm, nn.ReLU(inplace=True))
    )
    model.eval()
    x = torch.randn(3, 3, 8, 9)
    with torch.no_grad():
        expected = norm(model[0](x))
    assert torch.equal(captured(model, x, "0", "norm")["0"], expected)
    assert torch.equal(captured(model, x, "0", "act")["0"], expected.relu())
    target = plan(model, "act", "0")
    assert (target.info.stage, target.info.status, target.activation) == ("act", status, "relu")
    assert target.info.name == "0"


def test_stages_that_do_not_follow_are_not_claimed():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

        def forward(self, x):
            return F.relu(self.bn(self.conv(x)) + x)

    model = Residual()
    check(model, "act", nn.Sequential(model.conv, model.bn), "norm")
    alone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU())
    check(alone, "act", alone[0], "conv")
    check(alone, "norm", alone[0], "conv")
    active = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    check(active, "norm", active[0], "conv")
    check(active, "act", active[:2], "act")


def test_value_with_a_second_reader_has_no_activation():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            return y * torch.sigmoid(y)

    model = Gated()
    check(model, "act", model.conv, "conv")


def test_shared_activation_is_hooked_at_the_right_call():
    act = nn.PReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), act, nn.Conv2d(4, 4, 3), act).eval()
    x = torch.randn(2, 3, 8, 9)
    values = captured(model, x, stage="act")
    with torch.no_grad():
        assert torch.equal(values["0"], model[:2](x))
        assert torch.equal(values["2"], model(x))


def test_layers_that_are_no_convolution_are_taken_as_they_are():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.ReLU())
    assert plan(model, "act", "1").info.stage == "conv"
