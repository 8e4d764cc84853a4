"""Layers by name, glob and type, what is known of them, and the errors that teach."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.capturing import captured
from torch import nn

from fastconv.capture import plan_capture
from fastconv.errors import InputError, LayerError
from fastconv.geometry import input_boxes


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.ModuleDict(
            {
                "depthwise": nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4),
                "up": nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, dilation=2, groups=2),
            }
        )
        self.same = nn.Conv2d(6, 2, (2, 4), padding="same", dilation=(1, 3))
        self.head = nn.Linear(2, 5)
        self.lstm = nn.LSTM(2, 3, batch_first=True)
        self.unused = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        x = self.body["up"](self.body["depthwise"](self.stem(x)))
        x = self.same(x)
        self.lstm(x.flatten(2).transpose(1, 2))
        return self.head(x.mean((2, 3)))


X = torch.randn(2, 3, 9, 12)


def names(layers=None, model=None):
    return [t.info.name for t in plan_capture(model or Net(), X, layers)]


def test_default_is_every_convolution_in_forward_order():
    assert names() == ["stem.0", "body.depthwise", "body.up", "same"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("same", ["same"]),
        (["same", "stem.0"], ["stem.0", "same"]),
        ("body.*", ["body.depthwise", "body.up"]),
        ("stem*", ["stem.0", "stem.1", "stem.2", "stem"]),
        (nn.ConvTranspose2d, ["body.up"]),
        ([nn.BatchNorm2d, "s?me", nn.Linear], ["stem.1", "same", "head"]),
        (["head", "head", "h*"], ["head"]),
    ],
)
def test_names_globs_types_and_mixes(layers, expected):
    assert names(layers) == expected


def test_geometry_of_convolutions_is_recorded():
    infos = {t.info.name: t.info for t in plan_capture(Net(), X)}
    stem, wide, up, same = infos.values()
    assert (stem.kind, stem.channels, stem.size) == ("Conv2d", 4, (5, 6))
    assert (stem.kernel, stem.stride, stem.padding) == ((3, 3), (2, 2), ((1, 1), (1, 1)))
    assert (wide.kernel, wide.groups, wide.transposed) == ((3, 5), 4, False)
    assert (up.transposed, up.dilation, up.groups, up.size) == (True, (2, 2), 2, (12, 14))
    assert same.padding == ((0, 1), (4, 5))
    assert same.size == up.size


def test_weights_are_output_channels_first():
    model = Net()
    weights = {t.info.name: t.weight for t in plan_capture(model, X)}
    assert weights["stem.0"].data_ptr() == model.stem[0].weight.data_ptr()
    up = model.body["up"].weight  # [C_in, C_out/groups, 3, 3]
    assert weights["body.up"].shape == (6, 2, 3, 3)
    for c_out in range(6):
        group, within = divmod(c_out, 3)
        assert torch.equal(weights["body.up"][c_out], up[2 * group : 2 * group + 2, within])
    assert plan_capture(model, X, "head")[0].weight is None


def test_parametrised_weights_are_those_used():
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 3))
    conv.parametrizations.weight.original0.data *= 2
    (target,) = plan_capture(nn.Sequential(conv), X)
    assert torch.equal(target.weight, conv.weight)
    assert target.info.kernel == (3, 3)


def test_bare_convolution_goes_by_its_class_name():
    (target,) = plan_capture(nn.Conv2d(3, 2, 3), X)
    assert (target.info.name, target.info.status) == ("Conv2d", "exact")


def test_functional_and_circular_padding_in_a_subclass():
    class Conv2dSame(nn.Conv2d):
        def forward(self, x):
            return super().forward(F.pad(x, (1, 2, 0, 1)))

    (target,) = plan_capture(nn.Sequential(Conv2dSame(3, 2, (2, 4))), X)
    assert (target.info.size, target.info.status, target.info.kind) == (
        (9, 12),
        "exact",
        "Conv2dSame",
    )


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("stem.9", r"no layer matches 'stem.9': did you mean stem"),
        ("bodyy.up", r"did you mean body.up"),
        ("zzz*", r"no layer matches 'zzz\*': there are stem.0, stem.1, stem.2, stem \.\.\."),
        ("same#1", r"no layer matches 'same#1': did you mean same"),
        ("unused", "'unused' is in the model, but its forward never calls it"),
        ("lstm", r"'lstm' does not return one tensor .* got tuple\(\[2, 168, 3\], tuple\("),
        ("lst*", r"'lstm' does not return one tensor"),
        (nn.MaxPool2d, "fits no module that the forward calls; the model has Net, stem"),
        ([], "layers is empty"),
        (3, "takes names, globs and nn.Module classes, got 3"),
        (int, "takes names, globs and nn.Module classes"),
        (nn.Sequential(nn.ReLU()), "nn.Module classes, got a Sequential"),
    ],
)
def test_bad_selections_say_what_would_do(layers, message):
    with pytest.raises(LayerError, match=message) as caught:
        names(layers)
    assert "\n" not in str(caught.value)


def test_model_without_convolutions():
    model = nn.Sequential(nn.Flatten(), nn.Linear(324, 4), nn.ReLU())
    with pytest.raises(LayerError, match=r"calls no convolution module; name other .* 0, 1, 2"):
        names(model=model)
    (target,) = plan_capture(model, X, "1")
    assert (target.info.size, target.info.status, target.info.kernel) == ((), "global", None)


def test_channels_last_outputs_are_refused_by_name():
    class Swap(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    model = nn.Sequential(nn.Conv2d(3, 2, 3), Swap())
    with pytest.raises(LayerError, match=r"'1' .*got \[2, 7, 10, 2\] with the channels elsewhere"):
        names("1", model)
    assert names("*", model) == ["0"]


class EveryFrame(nn.Module):
    """A convolution over frames that are folded into the batch, and one over the clip."""

    def __init__(self, *, frames_first: bool = False):
        super().__init__()
        self.frame, self.clip = nn.Conv2d(3, 4, 3, padding=1), nn.Conv3d(4, 2, 3, padding=1)
        self.frames_first = frames_first

    def forward(self, x):  # [N, 3, T, H, W]
        if self.frames_first:
            frames = self.frame(x.permute(2, 0, 1, 3, 4).flatten(0, 1))
            return self.clip(frames.unflatten(0, (-1, len(x))).permute(1, 2, 0, 3, 4))
        frames = self.frame(x.transpose(1, 2).flatten(0, 1))
        return self.clip(frames.unflatten(0, (len(x), -1)).transpose(1, 2))


def test_frames_folded_into_the_batch_are_a_leading_position():
    frame, clip = plan_capture(EveryFrame(), torch.rand(2, 3, 5, 6, 7))
    assert (frame.info.name, frame.info.size, frame.instances) == ("frame", (5, 6, 7), 5)
    assert (frame.info.status, clip.info.status) == ("exact", "exact")
    boxes = input_boxes(frame.info.fields, np.array([[3, 2, 0]]))
    assert boxes.tolist() == [[[3, 4], [1, 4], [-1, 2]]]
    model, x = EveryFrame().eval(), torch.rand(3, 3, 5, 6, 7)
    with torch.no_grad():
        expected = torch.stack([model.frame(x[:, :, t]) for t in range(5)], 2)
    torch.testing.assert_close(captured(model, x)["frame"], expected)


def test_crops_folded_into_the_batch_have_a_bound():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):  # [N, 3, H, W]
            halves = torch.stack([x[..., :6], x[..., 6:]], 1).flatten(0, 1)
            return self.conv(halves).unflatten(0, (len(x), 2)).mean(1)

    (target,) = plan_capture(Halves(), X)
    assert (target.info.size, target.info.status) == ((2, 7, 4), "bound")
    assert input_boxes(target.info.fields, np.array([1, 0, 0])).tolist() == [[0, 9], [0, 12]]


def test_frames_before_samples_are_left_out_with_a_warning():
    with pytest.warns(UserWarning, match=r"left out: layer 'frame' .* not next to each other"):
        (target,) = plan_capture(EveryFrame(frames_first=True), torch.rand(2, 3, 5, 6, 7))
    assert target.info.name == "clip"


def test_convolutions_without_a_module_are_named_by_owner_and_function():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2, 3, 3))
            self.up = nn.Parameter(torch.randn(4, 3, 2, 2))

        def forward(self, x):
            x = F.conv2d(x, self.weight, padding=1, stride=2)
            return F.conv_transpose2d(x.relu_(), self.up, stride=2)

    model = nn.Sequential(nn.Conv2d(3, 2, 3), Block(), nn.Conv2d(3, 2, 1)).eval()
    targets = plan_capture(model, X)
    assert [t.info.name for t in targets] == ["0", "1.conv2d#0", "1.conv_transpose2d#0", "2"]
    info = targets[1].info
    assert (info.kind, info.module_path, info.kernel, info.stride) == (
        "conv2d",
        "1",
        (3, 3),
        (2, 2),
    )
    assert (info.status, info.transposed, targets[2].info.transposed) == ("exact", False, True)
    assert torch.equal(targets[1].weight, model[1].weight)
    assert targets[2].weight.shape == (3, 4, 2, 2)
    values = captured(model, X)
    with torch.no_grad():
        first = F.conv2d(model[0](X), model[1].weight, padding=1, stride=2)
        second = F.conv_transpose2d(first.relu(), model[1].up, stride=2)
        torch.testing.assert_close(values["1.conv2d#0"], first)
        torch.testing.assert_close(values["1.conv_transpose2d#0"], second)
    assert names("1.conv2d#0", model) == ["1.conv2d#0"]
    assert names(nn.Conv2d, model) == ["0", "2"]
    assert plan_capture(model, X, stage="act")[1].activation == "relu"


@pytest.mark.parametrize("compiled", [torch.jit.script, lambda m: torch.jit.trace(m, X)])
def test_torchscript_convolutions_are_found_among_the_operations(compiled):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3)).eval()
    expected = list(captured(plain, X).values())
    whole = captured(compiled(plain), X)
    assert list(whole) == ["conv2d#0", "conv2d#1"]
    for value, right in zip(whole.values(), expected, strict=True):
        torch.testing.assert_close(value, right)
    inside = captured(nn.Sequential(compiled(plain), nn.Conv2d(4, 2, 1)), X)
    assert list(inside) == ["conv2d#0", "conv2d#1", "1"]
    torch.testing.assert_close(inside["conv2d#1"], expected[1])


def test_exported_programs_and_graph_modules():
    plain = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3)).eval()
    expected = captured(plain, X)
    assert captured(torch.fx.symbolic_trace(plain), X).keys() == expected.keys()
    program = torch.export.export(plain, (X,))
    with pytest.raises(InputError, match=r"give what its \.module\(\) returns"):
        plan_capture(program, X)
    values = captured(program.module(), X)
    assert list(values) == ["conv2d#0", "conv2d#1"]
    torch.testing.assert_close(values["conv2d#1"], expected["2"])
    with pytest.raises(InputError, match="export it with dynamic_shapes"):
        captured(program.module(), X.repeat(2, 1, 1, 1))


def test_second_path_of_a_shared_module_is_a_name():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.ModuleDict({"encoder": nn.Sequential(conv), "decoder": nn.Sequential(conv)})
    model.forward = lambda x: model["decoder"](model["encoder"](x))
    assert names(model=model) == ["encoder.0", "encoder.0#1"]
    assert names("decoder.0", model) == ["decoder.0"]
    assert names(["decoder.0#1", "encoder.0"], model) == ["encoder.0", "decoder.0#1"]
    assert names(["decoder.0", "encoder.0"], model) == ["encoder.0"]


def test_complex_layers_are_refused_by_name():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3).to(torch.complex64))
    model[1].register_forward_pre_hook(lambda m, args: args[0].to(torch.complex64))
    with pytest.raises(LayerError, match="'1' returns complex values, which have no order"):
        names("1", model)


def test_weight_under_autocast_is_the_parameter():
    model = nn.Sequential(nn.Conv2d(3, 2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        (target,) = plan_capture(model, X)
    assert target.weight.data_ptr() == model[0].weight.data_ptr()


def test_lazy_modules_are_not_initialised_behind_the_back():
    model = nn.Sequential(nn.LazyConv2d(2, 3))
    with pytest.raises(InputError, match="lazy"):
        plan_capture(model, X)
    assert isinstance(model[0], nn.LazyConv2d)


def test_stage_and_example_are_checked():
    with pytest.raises(InputError, match="stage must be one of conv, norm, act, got 'relu'"):
        plan_capture(Net(), X, stage="relu")
    with pytest.raises(InputError, match=r"must be \[N, C, \*spatial\], got \[0, 3, 9, 12\]"):
        plan_capture(Net(), X[:0])
