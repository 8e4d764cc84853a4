"""The advice of `design`: planted faults are named with their figure, sound layers left alone."""

import numpy as np
import pytest
from helpers.planted import centre_surround, convolution, gabor, noise
from torch import nn

import fastconv
from fastconv.errors import InputError

BLUR = np.outer([1, 2, 1], [1, 2, 1]) / 16


def design_of(model, tmp_path, data=None, **options):
    data = noise(24, 1, 24, 24) if data is None else data
    with fastconv.extract(model, data, tmp_path / "run.h5", progress=False, **options) as run:
        return fastconv.insight.design(run).set_index("layer")


def edges(count=4):
    return np.stack([gabor(5, 180 * i / count, 90, 0.3) for i in range(count)])[:, None]


def depthwise(kernel, channels, **geometry):
    return convolution(np.stack([kernel[None]] * channels), groups=channels, **geometry)


def test_a_stride_that_aliases_is_told_from_one_behind_a_blur(tmp_path):
    bad = nn.Sequential(convolution(edges(), stride=2, padding=2))
    good = nn.Sequential(convolution(edges(), padding=2), depthwise(BLUR, 4, stride=2, padding=1))
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    first, second = design_of(bad, tmp_path / "bad"), design_of(good, tmp_path / "good")
    assert first.loc["0", "above_nyquist"] > 0.6
    assert "blur before thinning out by 2" in first.loc["0", "advice"]
    assert f"{first.loc['0', 'above_nyquist']:.0%}" in first.loc["0", "advice"]
    assert (second["above_nyquist"] < 0.15).all()
    assert not second["advice"].str.contains("blur").any()
    assert second["next_stride"].tolist() == [1, 2]


def test_pooling_between_layers_counts_as_thinning(tmp_path):
    model = nn.Sequential(
        convolution(edges(), padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3),
        convolution(np.ones((2, 4, 1, 1))),
        convolution(np.ones((2, 2, 1, 1))),
    )
    table = design_of(model, tmp_path)
    assert table["next_stride"].tolist() == [3, 1, 1]
    assert table.loc["0", "above_nyquist"] > 0.5


class Branches(nn.Module):
    """A branch that reads all positions, and one behind a pooling that runs later."""

    def __init__(self):
        super().__init__()
        self.stem = convolution(edges(), padding=2)
        self.wide, self.short = nn.Conv2d(4, 2, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.wide(x).mean() + self.short(nn.functional.max_pool2d(x, 4)).mean()


def test_the_layers_that_read_an_output_decide_not_those_that_run_next(tmp_path):
    table = design_of(Branches(), tmp_path)
    assert table["next_stride"].to_dict() == {"stem": 4, "wide": 1, "short": 1}


def test_an_unused_rim_is_measured_and_a_used_one_is_not(tmp_path):
    random = np.random.default_rng(0)
    small = np.pad(random.normal(size=(6, 1, 3, 3)), ((0, 0), (0, 0), (2, 2), (2, 2)))
    model = nn.Sequential(convolution(small), convolution(random.normal(size=(2, 6, 5, 5))))
    table = design_of(model, tmp_path)
    assert table["unused_rim"].tolist() == [2, 0]
    assert table.loc["0", "rim_energy"] == pytest.approx(0, abs=1e-12)
    assert "3x3 would do" in table.loc["0", "advice"] and "0.0%" in table.loc["0", "advice"]
    assert table.loc["1", "rim_energy"] == pytest.approx(16 / 25, abs=0.15)


def test_redundant_and_dead_filters_are_counted(tmp_path):
    kernels = edges(5)
    kernels[3] = 2 * kernels[0]
    bias = np.array([0, 0, 0, 0, -1e3])
    table = design_of(nn.Sequential(convolution(kernels, bias)), tmp_path)
    assert table.loc["0", ["filters", "redundant", "dead"]].tolist() == [5, 1, 1]
    assert "1 of 5 filters are redundant: 4 would do" in table.loc["0", "advice"]
    assert "1 of 5 filters are dead" in table.loc["0", "advice"]


def test_filters_of_other_weights_and_the_same_responses_are_redundant_with_samples(tmp_path):
    # the two read channels that hold the same picture
    kernels = np.zeros((2, 2, 5, 5))
    kernels[0, 0] = kernels[1, 1] = centre_surround(5, 2)
    data = noise(24, 1, 16, 16).repeat(1, 2, 1, 1)
    table = design_of(nn.Sequential(convolution(kernels)), tmp_path, data, samples=True)
    assert table.loc["0", "redundant"] == 1


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_dimensions(rank, tmp_path):
    kernel = np.zeros((2, 1, *(5,) * rank))
    kernel[(slice(None), 0, *(slice(1, 4),) * rank)] = np.random.default_rng(0).normal(
        size=(2, *(3,) * rank)
    )
    data = noise(4, 1, *(14,) * rank)
    table = design_of(nn.Sequential(convolution(kernel, stride=2)), tmp_path, data)
    assert table.loc["0", "unused_rim"] == 1
    assert table.loc["0", "kernel"] == "x".join("5" * rank)
    assert 0.2 < table.loc["0", "above_nyquist"] < 1


def test_a_transposed_convolution_thins_nothing_out(tmp_path):
    table = design_of(nn.Sequential(nn.ConvTranspose2d(1, 3, 4, stride=2)), tmp_path)
    assert table.loc["0", "next_stride"] == 1 and table.loc["0", "above_nyquist"] == 0


def test_a_run_without_statistics_says_what_would_keep_them(tmp_path):
    with pytest.raises(InputError, match="stats=True"):
        design_of(nn.Sequential(convolution(edges())), tmp_path, stats=False, quantiles=False)
