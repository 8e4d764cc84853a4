import itertools
import tarfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, default_collate

import fastconv
from fastconv.data import TarShards, open_data
from fastconv.errors import DataError, InputError


class Stream(IterableDataset):
    """Sample i is filled with i; its label is i % 3."""

    def __init__(self, n=10, make=lambda x, y: (x, y)):
        self.n, self.make, self.passes = n, make, 0

    def __iter__(self):
        self.passes += 1
        for i in range(self.n):
            yield self.make(torch.full((2, 3), float(i)), i % 3)


def units(n, size):
    return [range(i, min(i + size, n)) for i in range(0, n, size)]


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_sample_is_numbered_by_its_place_in_the_stream(num_workers):
    samples = open_data(DataLoader(Stream(), batch_size=2, num_workers=2))
    assert len(samples) == 10
    batches = list(samples.batches(units(10, 4), num_workers))
    assert torch.cat([x for x, _ in batches])[:, 0, 0].tolist() == list(range(10))
    assert torch.cat([y for _, y in batches]).tolist() == [i % 3 for i in range(10)]


def test_samples_that_are_not_asked_for_are_passed_over():
    samples = open_data(Stream())
    batches = samples.batches([[1, 3], range(7, 9)])
    assert [x[:, 0, 0].tolist() for x, _ in batches] == [[1, 3], [7, 8]]
    with pytest.raises(InputError, match=r"ascending order, got \[2\] after 3"):
        list(samples.batches([[3], [2]]))
    with pytest.raises(InputError, match=r"0 \.\.\. 9"):
        list(samples.batches([[10]]))


def test_shares_of_the_work_that_come_in_order_are_read_in_one_pass():
    stream = Stream(40)
    samples = open_data(stream)
    len(samples)
    before = stream.passes
    for share in ([range(4), range(8, 12)], [range(16, 20)], [range(36, 40)]):
        for (x, _), unit in zip(samples.batches(share), share, strict=True):
            assert x[:, 0, 0].tolist() == list(unit)
    assert stream.passes - before <= 1
    ((x, _),) = samples.batches([range(3)])  # and back
    assert x[:, 0, 0].tolist() == [0, 1, 2]
    assert stream.passes - before <= 2


def test_a_length_that_is_told_is_not_counted():
    class Sized(Stream):
        def __len__(self):
            return self.n

    passes = {}
    for kind in (Stream, Sized):
        stream = kind(40)
        assert len(open_data(stream)) == 40
        passes[kind] = stream.passes
    assert passes[Sized] == passes[Stream] - 1


def test_collate_fn_and_none_work_as_with_other_data_sets():
    def some(samples):
        return default_collate([s for s in samples if s is not None])

    stream = Stream(make=lambda x, y: None if x.max() in (0, 5) else (x, y))
    samples = open_data(DataLoader(stream, collate_fn=some), skip=True)
    batches = list(samples.batches(units(10, 4)))
    assert [x[:, 0, 0].tolist() for x, _ in batches] == [[1, 2, 3], [4, 6, 7], [8, 9]]
    assert samples.kept(range(4, 8)) == [4, 6, 7]
    assert samples.first() == 1
    with pytest.raises(DataError, match="sample 0 is None"):
        open_data(stream)


def changing(*sizes):
    """A stream that has another length in every pass."""
    left = iter(sizes)

    class Changing(IterableDataset):
        def __iter__(self):
            n = next(left)
            return iter([torch.full((1, 2), float(i)) for i in range(n)])

    return Changing()


def shuffled():
    order = np.random.default_rng(0)
    return Stream(make=lambda x, y: x.fill_(order.random()))


def breaking():
    return Stream(make=lambda x, y: x if x.max() < 3 else 1 / 0)


UNUSABLE = {
    "empty": (lambda: Stream(0), "empty: Stream is an iterable data set of none"),
    "shuffled": (shuffled, "random: its beginning differs .* and its shuffling"),
    "once": (lambda: (torch.zeros(1, 2) for _ in range(3)), "generator can be read only once"),
    "breaks": (breaking, r"the stream breaks after sample 2: ZeroDivisionError"),
    "nothing": (lambda: Stream(3, lambda x, y: None), "sample 0 is None"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_streams_are_refused_with_a_reason(case):
    make, message = UNUSABLE[case]
    with pytest.raises(DataError, match=message):
        len(open_data(make()))


def test_columns_are_read_with_the_samples():
    stream = Stream(make=lambda x, y: {"x": x, "y": y, "site": f"s{y}"})
    samples = open_data(stream)
    samples.keep_columns(["site"])
    found = [samples.column_values["site"] for _ in samples.batches(units(10, 4), 1)]
    assert found == [["s0", "s1", "s2", "s0"], ["s1", "s2", "s0", "s1"], ["s2", "s0"]]
    with pytest.raises(DataError, match=r"column .place. of sample 0 is missing: .* x, y, site"):
        samples.keep_columns(["place"])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_that_is_longer_than_it_tells_is_told(num_workers):
    class Longer(Stream):
        def __len__(self):
            return self.n - 1

    samples = open_data(Longer())
    with pytest.raises(DataError, match="goes on after its 9 samples"):
        list(samples.batches(units(9, 4), num_workers))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_that_has_become_shorter_is_told(num_workers):
    samples = open_data(changing(*[40] * 5, 7, 7))
    with pytest.raises(DataError, match="ended before sample 7: it has changed"):
        while True:
            list(samples.batches(units(len(samples), 4), num_workers))


def test_the_random_state_of_the_caller_is_left_alone():
    before = torch.get_rng_state()
    samples = open_data(Stream(make=lambda x, y: x + 0 * torch.rand(())))
    list(samples.batches(units(10, 4)))
    samples.fingerprint()
    assert torch.equal(before, torch.get_rng_state())


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


class Pictures(IterableDataset):
    """Counts the passes that come to sample 24, and ends one of them there."""

    def __init__(self):
        self.x = torch.rand(40, 3, 9, 9, generator=torch.Generator().manual_seed(1))
        self.passes, self.end = 0, None

    def __iter__(self):
        for i, x in enumerate(self.x):
            self.passes += i == 24
            if i == 24 and self.passes == self.end:
                raise KeyboardInterrupt
            yield x, i % 2


def test_a_run_over_a_stream_equals_one_over_an_array_and_goes_on_where_it_was(tmp_path):
    def extract(data, out):
        options = {"batch_size": 8, "samples": True, "thumbnails": False, "progress": False}
        return fastconv.extract(net(), data, tmp_path / out, **options)

    stream = Pictures()
    extract(stream, "whole.h5").close()
    stream.passes, stream.end = 0, stream.passes  # in the pass that measures, the last one
    with pytest.raises(KeyboardInterrupt):
        extract(stream, "stream.h5")
    assert list(tmp_path.glob("stream.h5.parts/u000000-000002-*.h5"))  # the units before it
    with extract(stream, "stream.h5") as run, extract(stream.x, "array.h5") as array:
        for name in array.layers:
            for column in ("values", "sample", "position", "box"):
                ours, theirs = (getattr(r[name].topk, column) for r in (run, array))
                assert np.array_equal(ours, theirs), (name, column)
            assert np.array_equal(run[name].samples.max, array[name].samples.max)
        assert run.samples.labels.tolist() == [i % 2 for i in range(40)]
    assert fastconv.verify(tmp_path / "stream.h5", net(), stream)


# -- as users have them -------------------------------------------------------------------------


def pictures(n):
    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8)
        yield i, Image.fromarray(pixels), pixels


@pytest.fixture
def hugging_face():
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["cat", "dog", "owl"])
    return datasets.Dataset.from_dict(
        {"label": [i % 3 for i in range(7)], "image": [image for _, image, _ in pictures(7)]},
        features=datasets.Features({"label": names, "image": datasets.Image()}),
    )


def test_hugging_face_data_sets(hugging_face):
    for data in (
        hugging_face.with_format("torch"),
        hugging_face.with_format("torch").to_iterable_dataset(num_shards=2),
    ):
        samples = open_data(data)
        ((x, y), *_) = samples.batches([range(7)])
        assert (x.dtype, len(samples)) == (torch.uint8, 7)
        assert y.tolist() == [i % 3 for i in range(7)]
        assert samples.classes() == ["cat", "dog", "owl"]
        for i, _, pixels in pictures(7):
            assert np.array_equal(x[i].permute(1, 2, 0).numpy(), pixels)


def test_hugging_face_data_sets_without_tensors_say_what_is_missing(hugging_face):
    with pytest.raises(DataError, match=r"is a PIL picture.*ToImage"):
        open_data(hugging_face)
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match="train; give one"):
        open_data(datasets.DatasetDict({"train": hugging_face}))
    numbers = datasets.Dataset.from_dict({"x": [[1.0, 2.0]] * 3})
    with pytest.raises(DataError, match=r"with_format\('torch'\)"):
        open_data(numbers)
    ((x, _),) = open_data(numbers.with_format("torch")).batches([range(3)])
    assert x.tolist() == [[1, 2]] * 3


def picture_bytes(image):
    held = BytesIO()
    image.save(held, "png")
    return held.getvalue()


def write_shards(folder, n, per_shard):
    """WebDataset shards of PNG pictures with a class and a caption."""
    folder.mkdir()
    samples = pictures(n)
    for number in itertools.count():
        part = list(itertools.islice(samples, per_shard))
        if not part:
            return
        with tarfile.open(folder / f"shard-{number:03}.tar", "w") as tar:
            for i, image, _ in part:
                png = picture_bytes(image)
                files = {"txt": b"a.caption", "cls": b"%d" % (i % 3), "png": png}
                for suffix, content in files.items():
                    info = tarfile.TarInfo(f"some/{i:06}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, BytesIO(content))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_tar_shards_are_read_by_index(tmp_path, num_workers):
    write_shards(tmp_path / "shards", 7, 3)
    shards = TarShards(sorted((tmp_path / "shards").iterdir()))
    assert shards.keys[3] == "shard-001.tar/some/000003.png"
    assert shards.labels == [0, 1, 2, 0, 1, 2, 0]
    samples = open_data(shards)
    batches = list(samples.batches([range(4), range(4, 7)], num_workers))
    x = torch.cat([x for x, _ in batches])
    for i, _, pixels in pictures(7):
        assert np.array_equal(x[i].permute(1, 2, 0).numpy(), pixels.astype(np.float32) / 255)


def test_webdataset_pipelines_are_streams(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write_shards(tmp_path / "shards", 7, 4)
    shards = [str(p) for p in sorted((tmp_path / "shards").iterdir())]
    samples = open_data(webdataset.WebDataset(shards, shardshuffle=False).decode("torchrgb"))
    ((x, y),) = samples.batches([range(7)])
    assert samples.unit_keys[4] == "some/000004" and len(samples) == 7
    assert y.tolist() == [0, 1, 2, 0, 1, 2, 0]
    for i, _, pixels in pictures(7):
        assert x[i].permute(1, 2, 0).numpy() == pytest.approx(pixels / 255, abs=1e-6)


def test_shards_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar file" * 99)
    with pytest.raises(DataError, match=r"a\.tar cannot be read as an uncompressed tar file"):
        TarShards([tmp_path / "a.tar"])
    with tarfile.open(tmp_path / "b.tar", "w"):
        pass
    with pytest.raises(DataError, match=r"no samples that can be read in tar shards: .*b\.tar"):
        TarShards([tmp_path / "b.tar"])
    held, sound = BytesIO(), picture_bytes(Image.new("L", (4, 4)))
    first, second = (Image.new("L", (4, 4), shade) for shade in (0, 255))
    first.save(held, "tiff", save_all=True, append_images=[second])
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        for name, content in (("1.tif", held.getvalue()), ("2.png", b"broken"), ("3.png", sound)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    shards = TarShards([tmp_path / "c.tar"])
    with pytest.raises(DataError, match=r"1\.tif holds 2 pages or frames"):
        shards[0]
    samples = open_data(shards, skip=True)
    list(samples.batches([[0, 1, 2]]))
    assert sorted(samples.skipped) == [0, 1]
    assert samples.skipped[1].startswith("sample 1 cannot be read: UnidentifiedImageError")
    assert samples.skipped[1].endswith("(2.png)")
