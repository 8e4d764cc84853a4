"""Whole pictures of the samples that have a hit."""

import numpy as np
import pytest
import torch
from helpers.networks import datasets, images, network

import fastconv
from fastconv.run.recording import Recording

OPTIONS = {"batch_size": 4, "topk": 2, "progress": False, "layers": ["0", "5"]}


def test_they_are_kept_of_samples_with_hits_or_maps_and_show_them(tmp_path):
    data = (torch.rand(30, 3, 250, 240, generator=torch.Generator().manual_seed(0)) * 255).byte()
    options = {**OPTIONS, "layers": None, "order": "both", "maps": [7, 19]}
    run = fastconv.extract(torch.nn.Conv2d(3, 2, 5), data, tmp_path / "run.h5", **options)
    layer = run[run.layers[0]]
    hits = {*layer.topk.sample.flatten().tolist(), *layer.bottomk.sample.flatten().tolist()}
    assert 4 < len(hits) <= 8
    hits |= {7, 19}
    for sample in range(30):
        picture = run.thumbnail(sample)
        assert (picture is not None) == (sample in hits)
        if picture is not None:
            assert picture.shape == (84, 80, 3) and picture.dtype == np.uint8  # a third
            corner = data[sample, :, :3, :3].double().mean((1, 2))
            np.testing.assert_allclose(picture[0, 0], corner, atol=0.51)


@pytest.mark.parametrize(("asked", "order"), [(None, "largest"), (True, "both")])
def test_shards_have_those_of_the_whole(asked, order, tmp_path):
    model, data, options = network(), images(30), {**OPTIONS, "thumbnails": asked, "order": order}
    options["maps"] = [3, 11, 29]
    fastconv.extract(model, data, tmp_path / "whole.h5", **options).close()
    shards = [tmp_path / f"{i}.h5" for i in range(3)]
    for i, shard in enumerate(shards):
        fastconv.extract(model, data, shard, shard=(i, 3), **options).close()
    fastconv.merge(shards, tmp_path / "merged.h5").close()
    whole, merged = datasets(tmp_path / "whole.h5"), datasets(tmp_path / "merged.h5")
    assert any("thumbnails" in name for name in whole)
    assert whole.keys() == merged.keys()
    assert [name for name in whole if whole[name] != merged[name]] == []


def test_large_data_sets_and_other_signals_keep_none(tmp_path):
    many = torch.rand(1025, 1, 110, 110)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, 50))
    run = fastconv.extract(model, many, tmp_path / "many.h5", progress=False)
    assert not any(run.thumbnail(i) is not None for i in range(1025))
    run = fastconv.extract(model, many, tmp_path / "asked.h5", thumbnails=True, progress=False)
    assert run.thumbnail(int(run["0"].topk.sample[0, 0])) is not None
    sounds = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3))
    run = fastconv.extract(
        sounds, torch.rand(9, 1, 50), tmp_path / "1d.h5", thumbnails=True, progress=False
    )
    assert run.thumbnail(0) is None


class Tiring:
    """One image cannot be read any more once the rows of the samples are put together."""

    def __init__(self):
        self.images, self.tired = images(30), False

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if self.tired and index == 3:
            raise OSError("the disk is gone")
        return self.images[index]


def test_a_sample_that_cannot_be_read_again_leaves_the_others_theirs(tmp_path, monkeypatch):
    options = {**OPTIONS, "maps": [3], "on_error": "skip"}
    with fastconv.extract(network(), Tiring(), tmp_path / "whole.h5", **options) as run:
        whole = [run.thumbnail(sample) for sample in range(30)]
    data, table = Tiring(), Recording.sample_table

    def late(recording):
        data.tired = True
        return table(recording)

    monkeypatch.setattr(Recording, "sample_table", late)
    with fastconv.extract(network(), data, tmp_path / "run.h5", **options) as run:
        assert whole[3] is not None and run.thumbnail(3) is None
        for sample, picture in enumerate(whole):
            if sample != 3:
                np.testing.assert_array_equal(run.thumbnail(sample), picture)
