"""Receptive fields against the support of the gradient of a probe."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.receptive_fields import Fn, check, check_impulses, positive
from torch import nn

from fastconv.capture import plan_capture
from fastconv.geometry import input_boxes


def basic_block(c_in: int, c_out: int, stride: int) -> nn.Module:
    shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))
    return Fn(
        lambda m, x: F.relu(m.conv2(F.relu(m.bn(m.conv1(x)))).add_(m.short(x)), inplace=True),
        conv1=nn.Conv2d(c_in, c_out, 3, stride, 1),
        bn=nn.BatchNorm2d(c_out),
        conv2=nn.Conv2d(c_out, c_out, 3, 1, 1),
        short=shortcut if stride > 1 or c_in != c_out else nn.Identity(),
    )


def test_plain_stack():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 5, 2, 2),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(3, 2, 3, padding=1),
    )
    check(model, (19, 23), {"0": "exact", "2": "exact", "3": "exact"})


def test_resnet_blocks_with_stride_and_downsample():
    model = nn.Sequential(
        nn.Conv2d(2, 2, 7, 2, 3),
        nn.AvgPool2d(3, 2, 1),
        basic_block(2, 2, 1),
        basic_block(2, 3, 2),
    )
    names = ["2", "2.conv2", "3.conv1", "3.short.0", "3.conv2", "3"]
    check(model, (32, 37), dict.fromkeys(names, "exact"))


@pytest.mark.parametrize(
    "activation",
    [
        nn.LeakyReLU(0.2),
        nn.LogSigmoid(),
        nn.Mish(inplace=True),
        nn.CELU(inplace=True),
        nn.Threshold(0.1, 0.0, inplace=True),
        nn.Hardswish(inplace=True),
        nn.PReLU(),
    ],
    ids=str,
)
def test_an_activation_moves_nothing(activation):
    model = nn.Sequential(nn.Conv2d(2, 2, 3), activation, nn.Conv2d(2, 2, 3, stride=2))
    check(model, (11, 12), {"0": "exact", "2": "exact"})


def test_inception_block_is_exact_only_where_every_channel_sees_the_same():
    block = Fn(
        lambda m, x: torch.cat([m.one(x), m.three(x), m.five(x), m.pool(x)], 1),
        one=nn.Conv2d(2, 1, 1),
        three=nn.Sequential(nn.Conv2d(2, 1, 1), nn.Conv2d(1, 2, 3, padding=1)),
        five=nn.Conv2d(2, 1, 5, padding=2),
        pool=nn.AvgPool2d(3, 1, 1),
    )
    model = nn.Sequential(block, nn.Conv2d(6, 2, 3, padding=1), nn.Conv2d(2, 2, 1, groups=2))
    check(model, (9, 11), {"0": "bound", "0.three.1": "exact", "1": "exact", "2": "exact"})
    depthwise = nn.Sequential(block, nn.Conv2d(6, 6, 3, padding=1, groups=6))
    check(depthwise, (9, 11), {"1": "bound"})


def test_dilated_stack():
    model = nn.Sequential(
        *(nn.Conv2d(2, 2, 3, padding=d, dilation=d) for d in (1, 2, 4)),
    )
    check(model, (17, 21), {"0": "exact", "1": "exact", "2": "exact"})


def test_dilation_with_holes_is_a_bound_at_the_border_only():
    check(nn.Sequential(nn.Conv2d(2, 2, 3, dilation=3)), (13, 13), {"0": "exact"})
    check(nn.Sequential(nn.Conv2d(2, 2, 3, dilation=3, padding=3)), (13, 13), {"0": "bound"})


def test_pixels_that_a_stride_leaves_out_make_a_bound():
    model = nn.Sequential(nn.AvgPool2d(3, 2), nn.Conv2d(2, 2, 3, padding=1))
    check(model, (8, 9), {"0": "exact", "1": "bound"})
    check(model, (9, 9), {"0": "exact", "1": "exact"})


@pytest.mark.parametrize("up", ["transposed", "nearest", "bilinear", "corners"])
def test_encoder_decoder_with_skip(up):
    layers = {
        "transposed": nn.ConvTranspose2d(3, 2, 3, 2, 1, 1),
        "nearest": nn.Upsample(scale_factor=2),
        "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
        "corners": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    }
    model = Fn(
        lambda m, x: m.out(torch.cat([m.up(m.low(m.pool(m.first(x)))), m.first(x)], 1)),
        first=nn.Conv2d(2, 2, 3, padding=1),
        pool=nn.AvgPool2d(2),
        low=nn.Conv2d(2, 3, 3, padding=1),
        up=layers[up],
        out=nn.Conv2d(4 if up == "transposed" else 5, 2, 3, padding=1),
    )
    # the grid of aligned corners drifts against the skip connection: no box is common to both
    after = {"corners": ("bound", "global")}.get(up, ("exact", "exact"))
    check(model, (12, 14), {"low": "exact", "up": after[0], "out": after[1]})


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "status", "after"),
    [
        (4, 2, 1, 1, "exact", "exact"),
        (2, 3, 0, 1, "bound", "bound"),  # a phase that sees nothing
        (5, 3, 2, 1, "exact", "exact"),
        (3, 2, 1, 2, "bound", "exact"),  # which three neighbours together see
    ],
)
def test_transposed_convolutions(kernel, stride, padding, dilation, status, after):
    layer = nn.ConvTranspose1d(2, 2, kernel, stride, padding, dilation=dilation)
    check(nn.Sequential(layer, nn.Conv1d(2, 2, 3)), (9,), {"0": status, "1": after})


def test_transposed_convolutions_in_a_row_leave_pixels_that_their_boxes_hold():
    model = nn.Sequential(
        *(nn.ConvTranspose1d(1, 1, 3, s, 1, dilation=2, bias=False) for s in (1, 2, 3))
    )
    check(model, (9,), {"0": "bound", "1": "bound", "2": "bound"}, channels=1)
    for strides in itertools.product((1, 2, 3), repeat=3):
        layers = [nn.ConvTranspose1d(1, 1, 3, s, 1, dilation=2, bias=False) for s in strides]
        check_impulses(positive(nn.Sequential(*layers)), (9,))


def test_pooled_dimension_is_exact_only_where_all_of_it_is_seen():
    model = Fn(lambda m, x: m.conv(x).mean(3), conv=nn.Conv2d(2, 3, (3, 1), (1, 2)))
    for width, status in ((9, "exact"), (8, "bound")):  # stride 2 leaves the last column out
        (target,) = plan_capture(nn.Sequential(model), torch.rand(1, 2, 9, width), "0")
        assert (target.info.size, target.info.status) == ((7,), status)


def test_one_position_of_many_is_a_bound():
    model = Fn(lambda m, x: m.conv(x)[:, :, :, 2], conv=nn.Conv2d(2, 3, 3))
    (target,) = plan_capture(nn.Sequential(model), torch.rand(1, 2, 9, 8), "0")
    assert target.info.status == "bound"


def test_1d_net():
    model = nn.Sequential(
        nn.Conv1d(1, 2, 9, 4, 4), nn.BatchNorm1d(2), nn.AvgPool1d(2), nn.Conv1d(2, 2, 3, padding=1)
    )
    check(model, (71,), {"0": "exact", "3": "exact"}, channels=1)


def test_3d_net():
    model = nn.Sequential(
        nn.Conv3d(1, 2, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
        nn.AvgPool3d(2, ceil_mode=True),
        nn.Conv3d(2, 2, 3, padding=1),
    )
    check(model, (5, 9, 11), {"0": "exact", "1": "exact", "2": "exact"}, channels=1)


def test_convnext_block_with_permutes():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 2, 2),
        Fn(
            lambda m, x: (
                x + m.two(F.gelu(m.one(m.norm(m.dw(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
            ),
            dw=nn.Conv2d(4, 4, 7, padding=3, groups=4),
            norm=nn.LayerNorm(4),
            one=nn.Linear(4, 8),
            two=nn.Linear(8, 4),
        ),
    )
    # the gradient through the norm's mean may cancel, so compare the depthwise part and the sum
    check(model, (12, 14), {"1.dw": "exact", "1": "exact"})


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_mirrored_padding_is_a_bound(mode):
    wide = nn.Conv2d(2, 2, 3, padding=1, padding_mode=mode)
    check(nn.Sequential(wide), (7, 8), {"0": "bound"})
    split = nn.Sequential(Fn(lambda m, x: F.pad(x, (3, 2, 1, 3), mode=mode)), nn.Conv2d(2, 2, 3))
    check(split, (7, 8), {"0": "bound", "1": "bound"})


def test_circular_padding_sees_the_other_end():
    check(
        nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
        (7, 8),
        {"0": "global"},
    )


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_named_padding(padding):
    check(nn.Sequential(nn.Conv2d(2, 2, (4, 3), padding=padding)), (7, 8), {"0": "exact"})


def test_padding_beyond_the_kernel():
    check(
        nn.Sequential(nn.Conv1d(2, 2, 2, padding=3), nn.Conv1d(2, 2, 5)),
        (6,),
        {"0": "bound", "1": "exact"},
    )


def test_resizes_of_odd_scale():
    for mode, status in (("nearest", "bound"), ("nearest-exact", "bound"), ("bicubic", "bound")):
        resize = Fn(lambda m, x, mode=mode: F.interpolate(x, size=(21, 16), mode=mode))
        check(nn.Sequential(nn.Conv2d(2, 2, 3), resize), (9, 12), {"1": status})
    check(nn.Sequential(nn.Upsample(scale_factor=0.5, mode="bilinear")), (8, 12), {"0": "exact"})


def test_adaptive_pooling_is_exact():
    check(
        nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.AdaptiveAvgPool2d((3, 5))),
        (11, 9),
        {"1": "exact"},
    )


@pytest.mark.parametrize("shuffle", [nn.PixelShuffle(2), nn.PixelUnshuffle(2)])
def test_pixel_shuffles(shuffle):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), shuffle)
    after = nn.Conv2d(1 if isinstance(shuffle, nn.PixelShuffle) else 16, 1, 3)
    check(nn.Sequential(*model, after), (8, 10), {"1": "bound", "2": "exact"})


def test_shuffled_channels_crops_and_strided_slices():
    model = Fn(
        lambda m, x: m.last(
            m.first(x).view(2, 2, 2, 9, 11).transpose(1, 2).flatten(1, 2)[:, :, 1:, ::2]
        ),
        first=nn.Conv2d(2, 4, 3, padding=1, groups=2),
        last=nn.Conv2d(4, 2, 3),
    )
    check(model, (9, 11), {"last": "exact"})


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.conv(x) * torch.sigmoid(m.conv(x).mean((2, 3), keepdim=True)),
        lambda m, x: F.instance_norm(m.conv(x)),
        lambda m, x: F.group_norm(m.conv(x), 1),
        lambda m, x: F.layer_norm(m.conv(x), (7, 8)),
        lambda m, x: m.conv(x).flatten(2).softmax(2).view(2, 3, 7, 8),
        lambda m, x: m.conv(x) @ m.conv(x).transpose(2, 3) @ m.conv(x),
        lambda m, x: m.conv(x).roll((1, 2), (2, 3)),
        lambda m, x: m.conv(x).flip(2, 3),
        lambda m, x: torch.fft.ifft2(torch.fft.fft2(m.conv(x))).real,
        lambda m, x: m.conv(x)[:, :, [3, 1, 0, 2, 6, 4, 5]][..., [7, 1, 0, 4, 2, 3, 6, 5]],
    ],
)
def test_what_mixes_positions_is_global(function):
    conv = nn.Conv2d(2, 3, 3, padding=1)
    check(nn.Sequential(Fn(function, conv=conv)), (7, 8), {"0": "global"})


def test_classifier_head_is_global():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)
    )
    check(model, (7, 8), {"1": "global", "2": "global", "3": "global"})


def test_pooling_one_dimension_leaves_the_other_local():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), Fn(lambda m, x: x.mean(3)), nn.Conv1d(3, 2, 3))
    (target,) = plan_capture(model, torch.rand(1, 2, 9, 8), "2")
    assert target.info.status == "exact"
    assert input_boxes(target.info.fields, np.array([1])).tolist() == [[1, 6], [0, 8]]


@pytest.mark.parametrize("start", [torch.clone, torch.zeros_like])
def test_writing_through_a_view_is_seen(start):
    def shift(m, x):
        y = m.conv(x)
        out = start(y)
        out[:, :, 1:] = y[:, :, :-1]
        return F.relu_(out) * 2

    check(nn.Sequential(Fn(shift, conv=nn.Conv2d(2, 3, 3, padding=1))), (7, 8), {"0": "global"})


def test_max_pooling_sees_what_average_pooling_sees():
    fields = []
    for pool in (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)):
        model = nn.Sequential(nn.Conv2d(1, 1, 3), pool, nn.Conv2d(1, 1, 3, padding=1))
        fields.append(plan_capture(model, torch.rand(1, 1, 17, 15))[-1].info.fields)
    assert fields[0] == fields[1]


def test_receptive_field_with_residual_dilation_and_transposed_convolution():
    model = nn.Sequential(
        basic_block(2, 2, 2),
        nn.Conv2d(2, 2, 3, padding=2, dilation=2),
        nn.ConvTranspose2d(2, 2, 4, 2, 1),
    )
    check(model, (15, 17), {"0": "exact", "1": "exact", "2": "exact"})
