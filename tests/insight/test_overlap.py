"""Network Dissection against a plain computation, and its thresholds."""

import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.planted import convolution, noise
from torch import nn

import fastconv
from fastconv.errors import InputError

MODULE = importlib.import_module("fastconv.insight.overlap")  # the package has the function


def model_and_data(rank=2):
    random = np.random.default_rng(0)
    model = nn.Sequential(
        convolution(random.normal(size=(5, 1, *(3,) * rank)), random.normal(size=5), padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2) if rank == 2 else nn.Identity(),
        convolution(random.normal(size=(4, 5, *(3,) * rank))),
    )
    return model, noise(30, 1, *(10,) * rank)


def plain(maps, masks, threshold):
    """IoU and share of energy of maps [N, C, *spatial] and masks [N, *size], the definition."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[maps.ndim - 2]
    large = F.interpolate(maps, masks.shape[1:], mode=mode).numpy()
    fires = large > threshold.reshape(-1, *(1,) * (maps.ndim - 2))
    inside = masks[:, None]
    axes = (0, *range(2, maps.ndim))
    energy = np.where(fires, large.astype(float) ** 2, 0)
    return (
        (fires & inside).sum(axes) / (fires | inside).sum(axes),
        (energy * inside).sum(axes) / energy.sum(axes),
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_table_is_its_definition(rank, monkeypatch):
    monkeypatch.setattr(MODULE, "_VALUES", 8000)  # a few filters at a time
    model, data = model_and_data(rank)
    random = np.random.default_rng(1)
    masks = {
        name: random.random((30, *(10,) * rank)) < share
        for name, share in (("a", 0.3), ("b", 0.02))
    }
    table = fastconv.overlap(model, data, masks, quantile=0.9, batch_size=8)
    assert list(table.columns) == ["layer", "filter", "class", "iou", "inside", "threshold"]
    with torch.inference_mode():
        first = model[0](data)
        maps = {"0": first, "3": model[3](model[2](first.relu()))}
    for (layer, name), rows in table.groupby(["layer", "class"]):
        assert rows["iou"].is_monotonic_decreasing
        rows = rows.sort_values("filter")
        threshold = rows["threshold"].to_numpy()
        exact = np.quantile(maps[layer].movedim(1, 0).flatten(1), 0.9, axis=1)
        np.testing.assert_allclose(threshold, exact, rtol=0.03, atol=1e-2)
        iou, inside = plain(maps[layer], masks[name], threshold.astype(np.float32))
        np.testing.assert_allclose(rows["iou"], iou, atol=1e-9)
        np.testing.assert_allclose(rows["inside"], inside, atol=1e-6)


def test_a_run_gives_the_same_thresholds_without_the_first_pass(tmp_path, monkeypatch):
    model, data = model_and_data()
    masks = np.zeros((30, 10, 10), int)
    masks[:, :3, :3], masks[:, 5:, 5:] = 1, 7
    options = {"stage": "act", "progress": False}
    with fastconv.extract(model, data, tmp_path / "run.h5", **options) as run:
        two = fastconv.overlap(model, data, masks, stage="act")
        monkeypatch.setattr(MODULE, "_thresholds", None)
        one = fastconv.overlap(model, data, masks, stage="act", run=run)
        assert one.equals(two)
        assert one["class"].unique().tolist() == [1, 7]
        with pytest.raises(InputError, match="has the stage 'act', not 'conv'"):
            fastconv.overlap(model, data, masks, run=run)


def test_a_filter_that_finds_the_mask_leads(tmp_path):
    # a bright square somewhere on a dark noisy ground, and a filter of its size
    random, masks = np.random.default_rng(0), np.zeros((40, 16, 16), bool)
    for mask in masks:
        y, x = random.integers(0, 13, 2)
        mask[y : y + 3, x : x + 3] = True
    data = torch.as_tensor(masks[:, None] + random.normal(0, 0.1, (40, 1, 16, 16))).float()
    kernels = np.concatenate([random.normal(size=(4, 1, 3, 3)) * 0.1, np.ones((1, 1, 3, 3)) / 9])
    model = nn.Sequential(convolution(kernels, padding=1))
    table = fastconv.overlap(model, data, masks, quantile=1 - 9 / 256)
    assert table["filter"][0] == 4 and table["iou"][0] > 0.5 and table["inside"][0] > 0.75
    assert table["iou"][1:].max() < 0.35


def test_bad_masks_are_told_in_one_line():
    model, data = model_and_data()
    right = np.zeros((30, 10, 10), bool)
    right[:, 2] = True
    for masks, message in [
        (right[:29], r"masks must be \[30, 10, 10\]"),
        (right[:, :9], r"masks must be \[30, 10, 10\].* got \[30, 9, 10\]"),
        ({"a": right, "b": right[..., :3]}, "masks must be"),
        ({}, "masks is empty"),
        (right.astype(float), "booleans or integers, got float64"),
        (np.zeros((30, 10, 10), int), "0 everywhere"),
        ([[0]], "masks must be"),
        ({"a": np.where(right, 0.3, 0)}, "mask 'a' must be 0 or 1 everywhere, got 0.3"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            fastconv.overlap(model, data, masks)
        assert "\n" not in str(caught.value)
    for quantile in (0, 1, 1.5):
        with pytest.raises(InputError, match="quantile must lie between 0 and 1"):
            fastconv.overlap(model, data, right, quantile=quantile)
    flat = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(128, 3))
    with pytest.raises(InputError, match="2 has maps of 0 dimensions and the input 2"):
        fastconv.overlap(flat, data, right, layers=["0", "2"])
    tensor = torch.from_numpy(right)
    assert fastconv.overlap(model, data, tensor)["class"].unique().tolist() == [1]
