"""Colours and tiles: what stands for which value, and that no value is lost."""

import io

import matplotlib
import numpy as np
from PIL import Image

from fastconv.draw.heat import (
    MISSING,
    columns_of,
    diverging,
    enlarge,
    finite_peak,
    finite_span,
    grid,
    kernel_tiles,
    png,
    sequential,
)


def test_colours_are_those_of_matplotlib():
    values = np.linspace(0, 1, 101)
    for found, name in (
        (sequential(values, 0, 1), "viridis"),
        (diverging(2 * values - 1, 1), "coolwarm"),
    ):
        truth = matplotlib.colormaps[name](values)[:, :3] * 255
        assert np.abs(found - truth).max() < 10


def test_zero_is_the_middle_of_a_diverging_scale_and_values_beyond_are_clipped():
    assert len(set(diverging(np.zeros(1), 5)[0].tolist())) <= 2  # grey
    ends = diverging(np.array([-9.0, -5, 5, 9]), 5)
    assert (ends[0] == ends[1]).all() and (ends[2] == ends[3]).all()
    assert ends[1][2] > ends[1][0] and ends[2][0] > ends[2][2]  # blue below, red above


def test_values_that_are_not_finite_are_grey():
    found = sequential(np.array([np.nan, np.inf, -np.inf, 1.0]), 0, 1)
    assert (found[:3] == MISSING).all() and (found[3] != MISSING).any()
    assert finite_peak(np.array([np.nan, -3.0, np.inf])) == 3
    assert finite_peak(np.zeros(3)) == finite_peak(np.array([np.nan])) == 1
    assert finite_span(np.array([np.nan, 2.0, 5.0])) == (2, 5)
    assert finite_span(np.full(2, 3.0)) == (2.5, 3.5) and finite_span(np.array([])) == (0, 1)


def test_tiles_hold_every_weight():
    rng = np.random.default_rng(0)
    for shape in ((5, 3, 7), (5, 3, 3, 5), (2, 4, 3, 2, 2), (1, 1, 1, 1)):
        weight = rng.normal(size=shape).astype(np.float32)
        tiles = kernel_tiles(weight)
        for kernel, tile in zip(weight, tiles, strict=True):
            assert sorted(tile[np.isfinite(tile)]) == sorted(kernel.ravel())


def test_the_strongest_channels_are_drawn_of_many():
    weight = np.zeros((1, 40, 3, 3), np.float32)
    weight[0, [3, 30]] = 2.0
    tile = kernel_tiles(weight)[0]
    assert np.isfinite(tile).sum() == 16 * 9 and (tile == 2).sum() == 18


def test_a_grid_shows_tiles_row_by_row():
    tiles = np.arange(5).reshape(5, 1, 1)
    assert grid(tiles, 3, 1, -1).tolist() == [
        [-1] * 7,
        [-1, 0, -1, 1, -1, 2, -1],
        [-1] * 7,
        [-1, 3, -1, 4, -1, -1, -1],
        [-1] * 7,
    ]
    assert columns_of(12, 10, 10) == 4 and columns_of(1, 5, 5) == 1


def test_a_picture_survives_as_png():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    again = np.asarray(Image.open(io.BytesIO(png(enlarge(picture, 15)))))
    assert (again[::2, ::2] == picture).all()
