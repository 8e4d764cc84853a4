"""Pictures of hits are kept once, or as parts of the inputs that they show, and read unchanged."""

import h5py
import numpy as np
import pytest
from helpers import synthetic
from helpers.read_all import read_all

import fastconv
from fastconv.errors import FileFormatError
from fastconv.format.patch_plan import PatchPlan, window
from fastconv.format.result import Pictures
from fastconv.store import write_patches
from fastconv.store.distinct import distinct_hits
from fastconv.store.writer import write_run


def layers(count=4, *, inputs=0, images=True, filters=24, size=12):
    """Layers of one network over six inputs: their pictures show the same ones."""
    rng, results, source = np.random.default_rng(inputs), [], None
    for i in range(count):
        info = synthetic.layer_info(f"conv{i}", filters, rank=2 if images else 1, size=size)
        result, _ = synthetic.layer_result(info, k=4, samples=6, seed=i, in_channels=3)
        plan = PatchPlan.create(info, (size,) * len(info.size))
        if source is None:
            source = synthetic.synthetic_inputs(plan, 6, None if images else 3, rng)
        result.patch_plan = plan
        result.patches = synthetic.cut_patches(plan, result.topk, source)
        results.append(result)
    return results


def kept_by_inputs(path):
    """The layers whose pictures are parts of shared inputs."""
    with h5py.File(path) as file:
        return [n for n, g in file["run/layers"].items() if "pictures" in g["patches"].attrs]


def assert_read_back(path, results):
    with fastconv.open(path) as run:
        for result in results:
            patches = run[result.info.name].patches
            np.testing.assert_array_equal(patches[()], result.patches)
            np.testing.assert_array_equal(patches[3, 1:], result.patches[3, 1:])
            for f, rank in ((0, 0), (5, 3)):
                found = run[result.info.name].patch(f, rank)
                np.testing.assert_array_equal(found, result.patches[f, rank])
        assert run.damaged() == []


@pytest.mark.parametrize("images", [True, False])
def test_layers_share_the_inputs_that_they_show(tmp_path, images):
    results = layers(images=images)
    path = write_run(tmp_path / "run.h5", {}, results)
    assert_read_back(path, results)
    assert len(kept_by_inputs(path)) >= 3
    with fastconv.open(path) as run, h5py.File(path) as file:
        shared = file["run/pictures/0"]
        assert shared["picture"].shape[0] == len(np.unique(shared["sample"])) == 6
        again = [run[name].result() for name in run.layers]  # as merging does
        write_run(tmp_path / "again.h5", {}, again)
        with fastconv.open(tmp_path / "again.h5") as copy:
            assert copy.digest() == run.digest()


def test_inputs_that_layers_share_are_read_once(tmp_path, reads):
    path = write_run(tmp_path / "run.h5", {}, layers(filters=400, size=40))
    with fastconv.open(f"counted://{path}") as run, h5py.File(path) as file:
        pictures = file["run/pictures/0/picture"]
        chunks = []
        pictures.id.chunk_iter(chunks.append)
        names = kept_by_inputs(path)
        run[names[0]].patches[()]
        reads.clear()
        run._file._remote._blocks.clear()  # as if others had come between
        for name in names[1:]:
            run[name].patches[()]
        for chunk in chunks:
            start, stop = chunk.byte_offset, chunk.byte_offset + chunk.size
            assert not any(a <= start and stop <= b for a, b in reads)


def test_what_lies_beyond_an_input_keeps_its_colour(tmp_path):
    results = layers()
    path = write_run(tmp_path / "run.h5", {}, results)
    name = kept_by_inputs(path)[0]
    with fastconv.open(path) as run:
        layer = run[name]
        above = np.argwhere(layer.topk.box[..., 0, 0] < 0)
        assert len(above)
        for f, rank in above:
            assert (layer.patch(f, rank)[0] == [9, 99, 0]).all()


def test_equal_pictures_are_kept_once(tmp_path):
    (result,) = layers(1)
    result.patch_plan = None
    write_run(tmp_path / "run.h5", {}, [result])
    places = {
        (s, *box.flatten())
        for s, box in zip(result.topk["sample"].ravel(), result.topk["box"].reshape(-1, 4))  # noqa: B905
        if s >= 0
    }
    with h5py.File(tmp_path / "run.h5") as file:
        held = file["run/layers/conv0/patches/picture"]
        assert len(held) == len(places) < result.topk["sample"].size
    assert_read_back(tmp_path / "run.h5", [result])


def test_pictures_that_contradict_each_other_are_kept_as_they_are(tmp_path):
    results = layers(3, inputs=0) + layers(3, inputs=1)  # a data set that gives something else
    for i, result in enumerate(results):
        result.info = synthetic.layer_info(f"conv{i}", 24, size=12)
    path = write_run(tmp_path / "run.h5", {}, results)
    assert_read_back(path, results)
    assert 0 < len(kept_by_inputs(path)) < 6


def test_inputs_that_would_fill_the_memory_are_not_gathered(tmp_path, monkeypatch):
    monkeypatch.setattr(write_patches, "BUDGET", 1000)
    results = layers()
    path = write_run(tmp_path / "run.h5", {}, results)
    assert_read_back(path, results)
    assert kept_by_inputs(path) == []


def test_distinct_hits_come_in_the_order_in_which_they_are_seen():
    topk = {
        "sample": np.array([[5, 2], [-1, 5], [2, 5]]),
        "box": np.zeros((3, 2, 1, 2), np.int64),
    }
    topk["box"][2, 1, 0] = (7, 9)
    found = distinct_hits(topk, None)
    assert found.row.tolist() == [[0, 1], [-1, 0], [1, 2]]
    assert found.sample.tolist() == [5, 2, 5] and found.start.tolist() == [[0], [0], [7]]
    assert list(zip(found.filter, found.rank, strict=True)) == [(0, 0), (0, 1), (2, 1)]


def test_distinct_hits_of_huge_inputs_are_told_apart():
    """Where sample and place together are beyond 64 bits."""
    topk = {"sample": np.array([[0, 1, 0, 1]]), "box": np.zeros((1, 4, 2, 2), np.int64)}
    topk["box"][0, 2:, :, 0] = 2**32 - 1
    assert distinct_hits(topk, None).row.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("start", [-9, -3, -1, 0, 2, 4, 9])
def test_windows_are_the_part_inside(start):
    source = np.arange(5)
    inside, there = window([start], (3,), (5,))
    picture = np.full(3, -1)
    picture[inside] = source[there]
    assert picture.tolist() == [i if 0 <= i < 5 else -1 for i in range(start, start + 3)]


def set_text(name, value):
    def change(group, run):
        owner = run["pictures/0"] if name == "outside" else group
        owner.attrs[name] = np.bytes_(value)

    return change


DAMAGES = {
    "a row beyond the pictures": lambda group, run: group["row"].__setitem__((0, 0), 99),
    "a row below -1": lambda group, run: group["row"].__setitem__((0, 0), -2),
    "pictures that are missing": set_text("pictures", "7"),
    "pictures somewhere else": set_text("pictures", "../../etc"),
    "a plan of no sense": set_text("plan", '{"factor": 0}'),
    "a plan of another rank": set_text(
        "plan", '{"factor": 1, "size": [3], "whole": [0], "extent": [9]}'
    ),
    "a huge plan": set_text(
        "plan", '{"factor": 1, "size": [99999999, 9999999], "whole": [0, 0], "extent": [9, 9]}'
    ),
    "no plan": lambda group, run: group.attrs.pop("plan"),
    "two colours": set_text("outside", "[1, 2]"),
    "no colour": set_text("outside", '"x"'),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_pictures_are_refused(tmp_path, case):
    path = write_run(tmp_path / "run.h5", {}, layers())
    name = kept_by_inputs(path)[0]
    with h5py.File(path, "r+") as file:
        DAMAGES[case](file[f"run/layers/{name}/patches"], file["run"])
    with pytest.raises(FileFormatError, match=r"run\.h5"):
        read_all(path)


def test_a_pool_without_pictures_is_zero_everywhere():
    """As a part has it whose samples are among the best of no filter."""
    empty = Pictures(np.zeros((0, 3, 3, 3), np.uint8), np.full((2, 4), -1))
    assert np.asarray(empty).shape == (2, 4, 3, 3, 3) and not np.asarray(empty).any()
    assert empty[0, 1:].shape == (3, 3, 3, 3)
