"""Sizes and boxes against what torch computes."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fastconv.errors import InputError
from fastconv.geometry import (
    MAX_PERIOD,
    ConvGeometry,
    FieldMap,
    adaptive_window,
    input_boxes,
    resize_window,
    transposed_window,
)

small = st.integers(1, 4)


@given(st.integers(1, 3), small, small, st.integers(0, 4), small, st.integers(13, 20))
def test_output_sizes_are_those_of_torch(rank, kernel, stride, padding, dilation, size):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](1, 1, kernel, stride, padding, dilation)
    geometry = ConvGeometry.create((kernel,) * rank, stride, padding, dilation)
    sizes = tuple(range(size, size + rank))
    assert (
        geometry.output_size(sizes)
        == conv.to("meta")(torch.empty(1, 1, *sizes, device="meta")).shape[2:]
    )


@given(small, small, st.integers(0, 2), small, st.integers(5, 9), st.integers(0, 1))
def test_transposed_sizes_are_those_of_torch(kernel, stride, padding, dilation, size, extra):
    extra = extra if stride > 1 or dilation > 1 else 0
    conv = nn.ConvTranspose1d(1, 1, kernel, stride, padding, extra, dilation=dilation)
    geometry = ConvGeometry.create((kernel,), stride, padding, dilation)
    expected = conv(torch.zeros(1, 1, size)).shape[2]
    assert geometry.transposed_size((size,), extra) == (expected,)


def test_same_padding_pads_the_end_more():
    geometry = ConvGeometry.create((4, 3), padding="same", dilation=(1, 2))
    assert geometry.padding == ((1, 2), (2, 2))
    assert geometry.output_size((7, 9)) == (7, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "full"}, "padding must be ints, 'same' or 'valid', got 'full'"),
        ({"padding": "same", "stride": 2}, "needs stride 1"),
        ({"padding": -1}, "must not be negative"),
        ({"stride": (1, 2, 3)}, "stride must be an int or 2 ints"),
        ({"dilation": 0}, "dilation must be at least 1"),
    ],
)
def test_bad_geometry_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ConvGeometry.create((3, 3), **arguments)


maps = st.builds(
    lambda advance, starts, extent: FieldMap(
        advance, tuple(sorted(starts)), tuple(s + extent for s in sorted(starts))
    ),
    st.integers(0, 5),
    st.lists(st.integers(-4, 4), min_size=1, max_size=4),
    small,
)


@given(maps, maps, st.integers(-9, 9))
def test_through_is_the_hull_of_the_boxes_of_the_box(outer, inner, position):
    first, end = outer.box(np.array(position))
    boxes = [inner.box(np.array(i)) for i in range(first, end)]
    start, stop = outer.through(inner).box(np.array(position))
    assert (start, stop) == (min(b[0] for b in boxes), max(b[1] for b in boxes))


@given(maps, maps, st.integers(-9, 9))
def test_union_is_the_hull_or_none(a, b, position):
    both = a.union(b)
    if both is None:
        assert Fraction(a.advance, a.period) != Fraction(b.advance, b.period)
        return
    boxes = [m.box(np.array(position)) for m in (a, b)]
    expected = (min(box[0] for box in boxes), max(box[1] for box in boxes))
    assert both.box(np.array(position)) == expected


def test_maps_keep_the_shortest_period():
    up, _ = transposed_window(4, 2, 1, 1)
    assert up.period == 2
    down = FieldMap.affine(2, 0, 2)
    assert down.through(up) == FieldMap.affine(1, -1, 3)
    assert FieldMap.whole(7).through(up).period == 1


def test_maps_without_a_short_period_are_none():
    a, b = (resize_window(Fraction(n, n + 1), taps=1)[0] for n in (1009, 1021))
    assert a.period * b.period > MAX_PERIOD
    assert a.through(b) is None


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    list(itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1), (1, 2))),
)
def test_transposed_window_is_where_the_gradient_goes(kernel, stride, padding, dilation):
    conv = nn.ConvTranspose1d(1, 1, kernel, stride, padding, dilation=dilation, bias=False)
    nn.init.ones_(conv.weight)
    window, blind = transposed_window(kernel, stride, padding, dilation)
    seen = conv(torch.eye(20)[:, None]).squeeze(1) > 0  # [input position, output position]
    for q in range(seen.shape[1] // 3, 2 * seen.shape[1] // 3):
        hits = seen[:, q].nonzero()
        start, stop = window.box(np.array(q))
        if len(hits):
            assert (start, stop) == (hits.min(), hits.max() + 1)
        assert (q % stride in blind) == (not len(hits))


@pytest.mark.parametrize(("size", "out"), [(12, 4), (11, 4), (7, 7), (5, 8), (9, 6)])
def test_adaptive_window_is_that_of_torch(size, out):
    seen = nn.AdaptiveAvgPool1d(out)(torch.eye(size)[:, None]).squeeze(1) > 0
    starts, stops = adaptive_window(size, out).box(np.arange(out))
    for q in range(out):
        hits = seen[:, q].nonzero()
        assert (starts[q], stops[q]) == (hits.min(), hits.max() + 1)


@pytest.mark.parametrize(("size", "out"), [(12, 24), (12, 6), (11, 44), (7, 21), (9, 14), (10, 7)])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
def test_resize_window_holds_what_torch_reads(size, out, mode):
    ratio = Fraction(size, out)
    offset = {
        "nearest": Fraction(0),
        "nearest-exact": ratio / 2,
        "linear": ratio / 2 - Fraction(1, 2),
    }
    window, certain = resize_window(ratio, offset=offset[mode], taps=2 if mode == "linear" else 1)
    resized = nn.functional.interpolate(torch.eye(size)[:, None], out, mode=mode)
    for q in range(out):
        hits = resized[:, 0, q].nonzero()
        start, stop = window.box(np.array(q))
        low, high = max(start, 0), min(stop, size)
        assert low <= hits.min() and hits.max() < high
        assert not certain or (low, high) == (hits.min(), hits.max() + 1)


def test_input_boxes_of_many_positions_and_missing_dimensions():
    fields = (FieldMap.affine(2, -1, 3), FieldMap.whole(9))
    boxes = input_boxes(fields, np.array([[[0], [4]]]))
    assert boxes.tolist() == [[[[-1, 2], [0, 9]], [[7, 10], [0, 9]]]]
    assert boxes.dtype == np.int64
    assert input_boxes(fields[1:], np.empty((2, 0))).tolist() == [[[0, 9]], [[0, 9]]]
    assert input_boxes((), np.empty((3, 0))).shape == (3, 0, 2)
