"""What reaches the caller, when the forward stops, and how the model is left."""

import pytest
import torch
from helpers.capturing import captured
from torch import Tensor, nn

from fastconv.capture import capture_forward, graph_signature, plan_capture
from fastconv.errors import FastconvError, InputError


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.conv(self.relu(self.conv(x))))


class Raising(nn.Module):
    def forward(self, x):
        raise ValueError("on purpose")


def state(model: nn.Module) -> list:
    return [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


def test_convolution_followed_by_an_in_place_relu():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)).eval()
    x = torch.randn(3, 3, 8, 9)
    with torch.no_grad():
        expected = model[0](x)
    assert expected.min() < 0
    assert torch.equal(captured(model, x)["0"], expected)


def test_module_called_twice_gets_an_index_per_call():
    model = Siamese().eval()
    x = torch.randn(3, 2, 8)
    with torch.no_grad():
        first = model.conv(x)
        second = model.conv(first.relu())
    values = captured(model, x)
    assert list(values) == ["conv", "conv#1"]
    assert torch.equal(values["conv"], first)
    assert torch.equal(values["conv#1"], second)
    assert list(captured(model, x, "relu#1")) == ["relu#1"]
    assert [t.info.module_path for t in plan_capture(model, x, "conv*")] == ["conv", "conv"]


def test_module_registered_under_two_names_counts_as_one():
    conv = nn.Conv1d(2, 2, 3)
    values = captured(nn.Sequential(conv, nn.ReLU(), conv), torch.randn(2, 2, 9))
    assert list(values) == ["0", "0#1"]


def test_forward_stops_after_the_deepest_target():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Identity(), nn.Conv2d(2, 2, 3))
    calls = []
    model[2].register_forward_hook(lambda *_: calls.append("probe or later"))
    targets = plan_capture(model, torch.randn(1, 1, 9, 9), ["1", "0"])
    calls.clear()
    got = []
    capture_forward(model, targets, torch.randn(2, 1, 9, 9), lambda i, t: got.append(i))
    assert got == [0, 1]
    assert not calls


@pytest.mark.parametrize("where", ["model", "callback", "nowhere"])
def test_hooks_and_modes_are_put_back_whatever_happens(where):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    model.train()
    model[2].eval()
    before = state(model)
    buffers = [b.clone() for b in model.buffers()]
    x = torch.randn(2, 1, 9, 9)
    targets = plan_capture(model, x)
    assert state(model) == before
    if where == "model":
        model[1].forward = Raising().forward

    def receive(i: int, tensor: Tensor) -> None:
        assert not any(m.training for m in model.modules())
        if where == "callback" and i == 1:
            raise ValueError("on purpose")

    if where == "nowhere":
        capture_forward(model, targets, x, receive)
    else:
        with pytest.raises(ValueError, match="on purpose"):
            capture_forward(model, targets, x, receive)
    assert state(model) == before
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_probe_that_raises_leaves_no_hook_behind():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Raising())
    before = state(model)
    with pytest.raises(ValueError, match="on purpose"):
        plan_capture(model, torch.randn(1, 1, 9, 9))
    assert state(model) == before


@pytest.mark.parametrize("form", [tuple, dict])
def test_models_that_return_tuples_and_dicts(form):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv1d(1, 2, 3), nn.Conv1d(2, 3, 3)

        def forward(self, x):
            y = self.a(x)
            pairs = (("y", y), ("z", self.b(y)))
            return dict(pairs) if form is dict else tuple(v for _, v in pairs)

    model, x = Model(), torch.randn(2, 1, 9)
    values = captured(model, x)
    assert torch.equal(values["b"], list(dict(model(x)).values() if form is dict else model(x))[1])


def test_wrong_channel_count_and_wrong_rank_are_input_errors():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match=r"expects 3 channels, got 1: .*\[2, 1, 8, 8\]"):
        plan_capture(model, torch.randn(2, 1, 8, 8))
    targets = plan_capture(model, torch.randn(1, 3, 8, 8))
    with pytest.raises(InputError, match="expects 3 channels, got 4"):
        capture_forward(model, targets, torch.randn(2, 4, 8, 8), lambda i, t: None)
    with pytest.raises(InputError, match="dimensions"):
        plan_capture(model, torch.randn(2, 3))


def test_model_that_writes_to_its_input_gets_a_copy_in_the_probe():
    class Centred(nn.Conv1d):
        def forward(self, x):
            return super().forward(x.sub_(x.mean()))

    x = torch.rand(1, 1, 9)
    before = x.clone()
    (target,) = plan_capture(nn.Sequential(Centred(1, 2, 3)), x)
    assert torch.equal(x, before)
    assert target.info.status == "global"


def test_other_errors_of_the_model_pass_unchanged():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(RuntimeError, match="cannot be multiplied") as caught:
        plan_capture(model, torch.randn(2, 3, 8, 8))
    assert not isinstance(caught.value, InputError)


def test_layer_that_is_not_called_this_time_is_named():
    class Switch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv1d(1, 2, 3), nn.Conv1d(1, 2, 3)

        def forward(self, x):
            return self.a(x) if x.sum() > 0 else self.b(x)

    model = Switch()
    targets = plan_capture(model, torch.ones(1, 1, 9))
    with pytest.raises(FastconvError, match="layer 'a' ran in the probe forward but not now"):
        capture_forward(model, targets, -torch.ones(1, 1, 9), lambda i, t: None)
    assert state(model) == state(Switch())


def test_model_that_catches_everything_still_ends():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 2, 3)

        def forward(self, x):
            try:
                return self.conv(x)
            except:  # noqa: E722
                return x

    got = captured(Stubborn(), torch.randn(2, 1, 9))
    assert list(got) == ["conv"]


def test_graph_signature_follows_the_graph_and_not_the_weights():
    def build(dilation: int = 1, skip: int = 0) -> nn.Module:
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = nn.Conv2d(2, 2, 3, padding=dilation, dilation=dilation)
                self.b = nn.Conv2d(2, 2, 3, padding=1)

            def forward(self, x):
                y = self.a(x)
                return self.b(y) + (x, y)[skip]

        return Model()

    x = torch.randn(1, 2, 9, 9)
    same = graph_signature(build(), x)
    assert same == graph_signature(build(), torch.randn(1, 2, 9, 9))
    others = [(build(dilation=2), x), (build(skip=1), x), (build(), torch.randn(1, 2, 9, 8))]
    assert len({same, *(graph_signature(*other) for other in others)}) == 4
