import numpy as np
import pytest
from helpers import synthetic

from fastconv.draw.montage import BACKGROUND, EMPTY, MAX_HITS, overview, weights_picture
from fastconv.draw.tiles import LINES, patch_tiles
from fastconv.draw.weights import kernel_pictures

KINDS = {
    "rgb": {"rank": 2, "in_channels": 3},
    "grey": {"rank": 2, "in_channels": 1},
    "many": {"rank": 2, "in_channels": 6},
    "audio": {"rank": 1, "in_channels": 2, "size": 65},
    "volume": {"rank": 3, "in_channels": 1, "size": 3},
}


def result(channels=16, k=9, rank=2, in_channels=3, kernel=3, size=7, samples=11):
    info = synthetic.layer_info("conv1", channels, rank, kernel, size)
    return synthetic.layer_result(info, k=k, in_channels=in_channels, samples=samples)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 5, 17])
def test_every_kind_of_input_gives_a_picture(kind, channels):
    made = result(channels, 3, **KINDS[kind])
    picture = overview(made)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert (picture == overview(made)).all()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 4
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == BACKGROUND).all()


@pytest.mark.parametrize(("channels", "kernel"), [(33, 3), (33, 99), (64, 11), (500, 3)])
def test_the_picture_of_many_filters_is_near_four_to_three(channels, kernel):
    made = result(channels, 9, kernel=kernel, size=3)
    height, width = overview(made).shape[:2]
    assert 0.9 < width / height < 2 and height < 2000


def test_every_patch_of_the_first_filters_is_there_in_order():
    made = result(20, 4)
    made.topk["sample"][:] = 0
    for f, rank in np.ndindex(20, 4):
        made.patches[f, rank] = (200, f * 10, rank * 50)
    picture = overview(made)
    rows = {f: np.argwhere((picture == (200, f * 10, 0)).all(axis=2)) for f in range(20)}
    assert all(len(found) > 50 * 50 for found in rows.values())
    for f, found in rows.items():
        y, x = found[0]
        side = int(len(found) ** 0.5)
        for rank in range(4):
            assert tuple(picture[y, x + rank * (side + 2)]) == (200, f * 10, rank * 50)


@pytest.mark.parametrize("channels", [1, 7, 12, 31])
def test_every_filter_has_its_number_beside_it(channels):
    made = result(channels, 1)
    made.weight = None
    made.topk["sample"][:] = 0
    for f in range(channels):
        made.patches[f] = (200, f, 0)
    picture = overview(made)
    written = (picture != BACKGROUND).any(axis=2)
    for f in range(channels):
        tile = (picture == (200, f, 0)).all(axis=2)
        (top, left), (bottom, _) = np.argwhere(tile)[[0, -1]]
        beside = written[top : bottom + 1, left - 20 : left]
        assert beside.any()
        written[top : bottom + 1, left - 20 : left] = False
        written[tile] = False
    assert not written.any()  # no number of a filter that is not there


def test_of_very_many_hits_the_first_are_shown():
    many = result(4, 3 * MAX_HITS, samples=5 * MAX_HITS)
    few = result(4, MAX_HITS, samples=5 * MAX_HITS)
    few.patches[:] = many.patches[:, :MAX_HITS]
    assert (overview(many) == overview(few)).all()


def test_pictures_are_upright():
    made = result(1, 1, kernel=4)
    made.patches[:] = 0
    made.patches[0, 0, 0, 0] = (0, 250, 0)  # the first row, the first column
    green = np.argwhere((overview(made) == (0, 250, 0)).all(axis=2))
    dark = np.argwhere((overview(made) == 0).all(axis=2))
    assert green.min(axis=0).tolist() == np.minimum(green.min(0), dark.min(0)).tolist()


def test_a_filter_without_hits_is_flat():
    made = result(4, 2)
    picture = overview(made)  # filter 2 saw NaN only
    flat = (picture == EMPTY).all(axis=2).sum()
    assert flat >= 2 * 50 * 50


def test_the_patches_are_left_alone():
    for kernel in (3, 70):  # some grow to a tile, some have about its size
        made = result(4, 2, kernel=kernel)
        before = made.patches.copy()
        overview(made)
        assert (made.patches == before).all()


def test_weights_are_a_picture_when_they_are_colours_or_grey():
    for channels, shown in ((1, True), (3, True), (2, False), (16, False)):
        picture = weights_picture(result(in_channels=channels).weight)
        assert (picture is not None) is shown
    weight = np.zeros((2, 3, 5, 5), np.float32)
    weight[0, 0], weight[1, 2] = 2, -3
    picture = weights_picture(weight)
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert colours == {BACKGROUND, (255, 128, 128), (128, 128, 0)}


def test_without_patches_there_is_no_overview():
    made = result()
    made.patches = None
    assert overview(made) is None


def test_kernels_are_blue_below_and_red_above_zero():
    weight = np.zeros((3, 1, 2, 2), np.float32)
    weight[0, 0] = [[-5, 5], [0, 2]]
    weight[1, 0, 0, 0] = np.nan
    blue, red, zero = (
        kernel_pictures(weight)[0][at].astype(int) for at in ((0, 0), (0, 1), (1, 0))
    )
    assert blue[2] > blue[0] + 100 and red[0] > red[2] + 100 and np.ptp(zero) < 10
    assert (kernel_pictures(weight)[1:] == zero).all()  # NaN and zeros alone
    assert kernel_pictures(weight[:, 0, :, :, None][..., 0].reshape(3, 2, 2)).shape[0] == 3  # 1-D
    wide = kernel_pictures(np.ones((2, 5, 3, 3), np.float32))
    assert wide.shape[0] == 2 and (wide == BACKGROUND).all(axis=3).any()


def test_lines_follow_the_values_of_their_channel():
    patches = np.zeros((1, 1, 1, 50), np.float32)
    patches[0, 0, 0, 25:] = 1
    tile = patch_tiles(patches, 60)[0, 0]
    shown = (tile == LINES[0]).all(axis=2)
    low, high = shown[:, : tile.shape[1] // 3], shown[:, -tile.shape[1] // 3 :]
    assert np.argwhere(low)[:, 0].min() > 0.8 * tile.shape[0] > 0.2 * tile.shape[0]
    assert np.argwhere(high)[:, 0].max() < 0.2 * tile.shape[0]
