import os
import random
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from fastconv.data import hint, open_data
from fastconv.data.samples import prepared
from fastconv.errors import DataError, InputError


class Numbered(Dataset):
    """Sample i is filled with i; its label is i % 3."""

    def __init__(self, n=10, make=lambda x, y: (x, y)):
        self.n, self.make = n, make

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.make(torch.full((2, 3), float(i)), i % 3)


class Broken(Numbered):
    """Fails on one sample, in the way it is told."""

    def __init__(self, how, at=7):
        super().__init__()
        self.how, self.at = how, at

    def __getitem__(self, i):
        if i == self.at:
            if self.how == "raise":
                raise OSError("truncated\nfile")
            if self.how == "die":
                os._exit(3)
            return torch.zeros(2, 4), 0
        return super().__getitem__(i)


def units(n, size):
    return [range(i, min(i + size, n)) for i in range(0, n, size)]


def read(data, size=4, num_workers=0):
    samples = open_data(data)
    batches = list(samples.batches(units(len(samples), size), num_workers))
    return [x for x, _ in batches], [y for _, y in batches]


KINDS = {
    "x": lambda x, _: x,
    "tuple": lambda x, y: (x, y, "more"),
    "numpy": lambda x, y: (x.numpy(), np.int32(y)),
    "dict": lambda x, y: {"id": y, "pixel_values": x, "label": torch.tensor(y)},
    "unnamed dict": lambda x, y: {"target": y, "spectrum": x},
    "label first": lambda x, y: {"label": torch.tensor([y]), "data": x},
    "by rank": lambda x, y: {"class": y, "box": torch.zeros(4), "spectrum": x},
    "path beside it": lambda x, y: {"image": "a.png", "pixels": x, "y": y},
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_sample_gives_the_same_rows(kind, num_workers):
    inputs, labels = read(Numbered(10, KINDS[kind]), 4, num_workers)
    assert [len(x) for x in inputs] == [4, 4, 2]
    assert torch.cat(inputs)[:, 0, 0].tolist() == list(range(10))
    if kind == "x":
        assert labels == [None] * 3
    else:
        assert torch.cat(labels).tolist() == [i % 3 for i in range(10)]
        assert labels[0].dtype == torch.int64


@pytest.mark.parametrize("convert", [lambda t: t, lambda t: t.numpy(), TensorDataset], ids=str)
def test_arrays_are_read_in_order_and_are_not_aliased(convert):
    tensor = torch.arange(10.0).reshape(10, 1)
    inputs, labels = read(convert(tensor))
    assert torch.cat(inputs)[:, 0].tolist() == list(range(10))
    assert labels == [None] * 3
    inputs[0].zero_()
    assert tensor[3] == 3


def test_array_like_h5py_dataset_and_arbitrary_indices(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("x", data=np.arange(20, dtype=">i2").reshape(10, 2))
        ((x, _),) = open_data(data).batches([[7, 2, 2]])
    assert prepared(x).tolist() == [[14, 15], [4, 5], [4, 5]]


def test_integers_become_float_unscaled_and_other_dtypes_stay():
    samples = open_data(torch.tensor([[0], [255]], dtype=torch.uint8))
    ((x, _),) = samples.batches([range(2)])
    assert (x.dtype, x.max().item(), samples.input_dtype) == (torch.uint8, 255, "uint8")
    x = prepared(x)
    assert (x.dtype, x.max().item()) == (torch.float32, 255)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        ((x, _),) = open_data(torch.zeros(2, 1, dtype=dtype)).batches([range(2)])
        assert x.dtype == dtype


def test_labels_that_are_not_integers_are_left_out():
    for label in (torch.tensor(0.5), "cat", torch.zeros(4, dtype=torch.int64), None):
        assert read(Numbered(4, lambda x, _, label=label: (x, label)))[1] == [None]
    inputs = torch.zeros(4, 1)
    assert read(TensorDataset(inputs, torch.zeros(4)))[1] == [None]
    assert read(TensorDataset(inputs, torch.arange(4)))[1][0].tolist() == [0, 1, 2, 3]


def test_trap_9_rows_match_the_data_whatever_the_loader_does():
    """Shuffled, short last batch, dropped last batch, several workers: the index is right."""
    loader = DataLoader(Numbered(10), batch_size=3, shuffle=True, drop_last=True, num_workers=2)
    for num_workers in (0, 2):
        inputs, labels = read(loader, 4, num_workers)
        assert torch.cat(inputs)[:, 0, 0].tolist() == list(range(10))
        assert torch.cat(labels).tolist() == [i % 3 for i in range(10)]


def test_collate_fn_of_a_loader_is_respected():
    def doubled(samples):
        return {"image": torch.stack([x for x, _ in samples]) * 2, "y": [y for _, y in samples]}

    inputs, labels = read(DataLoader(Numbered(5), collate_fn=doubled))
    assert torch.cat(inputs)[:, 0, 0].tolist() == [0, 2, 4, 6, 8]
    assert torch.cat(labels).tolist() == [0, 1, 2, 0, 1]


def test_collate_fn_that_drops_or_breaks_samples_is_an_error():
    drops = DataLoader(
        Numbered(), collate_fn=lambda s: torch.stack([x for x, _ in s if x.max() != 5])
    )
    with pytest.raises(DataError, match=r"makes shape \[3, 2, 3\] of samples 4 ... 7"):
        read(drops)
    stacks = DataLoader(Broken("shape"), collate_fn=lambda s: torch.stack([x for x, _ in s]))
    with pytest.raises(DataError, match=r"collate_fn fails on samples 4 ... 7: RuntimeError"):
        read(stacks)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_sample_that_raises_is_named_with_its_error(num_workers):
    with pytest.raises(DataError) as caught:
        read(Broken("raise"), 4, num_workers)
    assert str(caught.value) == "sample 7 cannot be read: OSError: truncated file"
    assert "truncated" in str(caught.value.__cause__)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_sample_of_another_shape_is_named(num_workers):
    with pytest.raises(DataError, match=r"sample 7 has shape \[2, 4\], sample 0 has \[2, 3\]"):
        read(Broken("shape"), 4, num_workers)


def test_a_worker_that_dies_is_a_data_error():
    with pytest.raises(DataError, match=r"worker process died .* samples [04] \.\.\. [79] "):
        read(Broken("die"), 4, 1)


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


UNUSABLE = {
    "iterable": (DataLoader(Endless()), "Endless is an iterable data set"),
    "two inputs": (
        Numbered(2, lambda x, y: {"left": x, "right": x}),
        r"sample 0 may be one of several arrays of a dict: left \[2, 3\], right \[2, 3\]; name one",
    ),
    "no input": (Numbered(2, lambda x, y: {"name": "a", "y": y}), "no array under name, y"),
    "picture": (
        Numbered(2, lambda x, y: (Image.new("RGB", (4, 4)), y)),
        r"the input of sample 0 is a PIL picture, .*transforms\.v2\.ToImage",
    ),
    "list": (Numbered(2, lambda x, y: {"image": [[1, 2]]}), "with_format"),
    "long double": (np.zeros((2, 1, 4), np.longdouble), r"astype\(np\.float32\)"),
    "sample of long double": (
        Numbered(2, lambda x, y: np.zeros((1, 4), np.longdouble)),
        r"sample 0 is float128, .*astype\(np\.float32\)",
    ),
    "sparse": (torch.zeros(2, 3, 8, 8).to_sparse(), r"sparse.*to_dense\(\)"),
    "sample of sparse": (Numbered(2, lambda x, y: x.to_sparse()), r"sample 0 is sparse.*to_dense"),
    "scipy sparse": (scipy.sparse.csr_matrix(np.eye(4)), r"sparse.*toarray\(\)"),
    "meta": (torch.zeros(2, 3, device="meta"), "meta tensor"),
    "several data sets": ({"train": Numbered(), "test": Numbered()}, "train, test; give one"),
    "empty array": (torch.zeros(0, 3, 8, 8), "empty"),
    "empty data set": (Numbered(0), "empty"),
    "one dimension": (torch.zeros(5), r"\[N, C, ...\], got shape \[5\]"),
    "text": ("photos/", "got str"),
    "objects": (np.array([[{}], [{}]]), "real numbers"),
    "no tensor": (Numbered(2, lambda x, y: ("a.png", y)), "input of sample 0 is a str"),
    "no label later": (
        Numbered(5, lambda x, y: (x, None if x.max() == 4 else y)),
        "sample 4 has no",
    ),
    "random": (Numbered(5, lambda x, y: torch.rand(2)), "random: sample 0 differs"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_data_is_refused_with_a_reason(case):
    data, message = UNUSABLE[case]
    with pytest.raises(DataError, match=message):
        read(data)


SEVERAL = {
    "tuple": lambda x, y: ((x, x[:1].numpy()), y),
    "dict": lambda x, y: ({"pixels": x, "mask": x[:1]}, y),
    "named": lambda x, y: {"x": (x, x[:1]), "other": torch.zeros(9, 9, 9), "y": y},
}


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_several_inputs_of_a_model_are_batches_of_the_same_form(kind, num_workers):
    def some(samples):
        return default_collate([s for s in samples if s is not None])

    make = SEVERAL[kind]
    data = Numbered(6, lambda x, y: None if x.max() == 4 else make(x, y))
    for collate in (None, some):
        samples = open_data(DataLoader(data, collate_fn=collate), skip=True)
        batches = list(samples.batches([range(4), range(4, 6)], num_workers))
        for (x, y), rows in zip(batches, ([0, 1, 2, 3], [5]), strict=True):
            first, second = x.values() if kind == "dict" else x
            assert first[:, 1, 0].tolist() == rows
            assert second.shape == (len(rows), 1, 3)
            assert y.tolist() == [i % 3 for i in rows]
        assert (samples.sample_shape, samples.input_dtype) == ((2, 3), "float32")
        changed = open_data(Numbered(6, lambda x, y: make(x + (x.max() == 5), y)))
        assert changed.fingerprint()["contents_sha256"] != samples.fingerprint()["contents_sha256"]


def test_a_sample_with_another_number_of_inputs_is_named():
    data = Numbered(6, lambda x, y: ((x,) * (3 if x.max() == 4 else 2), y))
    with pytest.raises(DataError, match="sample 4 has other inputs than sample 0"):
        read(data)
    names = Numbered(6, lambda x, y: ({"a": x, "b" if x.max() < 4 else "c": x}, y))
    with pytest.raises(DataError, match="sample 4 has other inputs than sample 0"):
        read(names)


def test_samples_of_several_sizes_come_one_by_one():
    data = Numbered(4, lambda x, y: (torch.zeros(2, 3 + y), y))
    samples = open_data(data, one_size=False)
    shapes = [list(x.shape) for x, _ in samples.batches([[i] for i in range(4)])]
    assert shapes == [[1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 2, 3]]
    channels = Numbered(4, lambda x, y: (torch.zeros(2 + y, 3), y))
    with pytest.raises(DataError, match=r"sample 1 has shape \[3, 3\].*as many channels"):
        list(open_data(channels, one_size=False).batches([[1]]))


HINTS = {
    "one picture": (torch.zeros(3, 16, 16), r"\[3, 16, 16\] is one sample .* give data\[None\]"),
    "no channels": (torch.zeros(9, 16, 16), r"no channels.* give data\[:, None\]"),
    "sample without channels": (Numbered(2, lambda x, y: torch.zeros(8, 8)), r"give x\[None\]"),
    "channels last": (
        Numbered(2, lambda x, y: np.zeros((8, 9, 3), np.uint8)),
        r"\[8, 9, 3\] have their channels last.*v2\.ToImage\(\), or x\.permute\(2, 0, 1\)",
    ),
}


@pytest.mark.parametrize("case", HINTS)
def test_what_may_be_wrong_with_samples_that_a_model_refuses(case):
    data, expected = HINTS[case]
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3))
    assert re.search(expected, hint(open_data(data), model))
    assert hint(open_data(torch.zeros(2, 3, 8, 8)), model) is None
    assert hint(open_data(data), nn.Linear(3, 2)) is None


def flipped(x, y, toss):
    return (x.flip(0), y) if toss() else (x, y)


DRAWS = {
    "torch": lambda: torch.rand(()) < 0.5,
    "numpy": lambda: np.random.rand() < 0.5,
    "random": lambda: random.random() < 0.5,
    "own": np.random.default_rng(0).random,
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("seed", range(5))
def test_a_random_transform_is_refused_even_if_it_acts_on_every_second_sample(draw, seed):
    torch.manual_seed(seed)
    toss = DRAWS[draw] if draw != "own" else iter([True, False] * 9).__next__
    ramp = torch.arange(6.0).reshape(2, 3)
    data = Numbered(3, lambda x, y: flipped(ramp, y, toss))
    with pytest.raises(DataError, match=r"random: sample 0 differs .*leave its random transforms"):
        open_data(data)


def test_drawing_numbers_that_change_nothing_is_not_random():
    assert len(open_data(Numbered(3, lambda x, y: (x + 0 * torch.rand(()), y)))) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_random_state_of_the_caller_is_left_alone(num_workers):
    def draws(x, y):
        return x + 0 * (torch.rand(()) + np.random.rand() + random.random()), y

    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    samples = open_data(DataLoader(Numbered(10, draws), shuffle=True))
    list(samples.batches(units(10, 4), num_workers))
    samples.fingerprint()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


def without_none(samples):
    return default_collate([s for s in samples if s is not None])


@pytest.mark.parametrize("collate", [None, without_none])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_none_for_a_broken_sample_is_skipped(collate, num_workers):
    data = Numbered(10, lambda x, y: None if x.max() in (0, 5) else (x, y))
    samples = open_data(DataLoader(data, collate_fn=collate), skip=True)
    batches = list(samples.batches(units(10, 4), num_workers))
    assert [x[:, 0, 0].tolist() for x, _ in batches] == [[1, 2, 3], [4, 6, 7], [8, 9]]
    assert [y.tolist() for _, y in batches] == [[1, 2, 0], [1, 0, 1], [2, 0]]
    assert samples.skipped[5] == "sample 5 is None: the data set could not read it"
    assert samples.kept(range(4, 8)) == [4, 6, 7]


def test_none_is_an_error_that_names_the_sample_unless_skipped():
    data = Numbered(10, lambda x, y: None if x.max() == 5 else (x, y))
    with pytest.raises(DataError, match="sample 5 is None"):
        read(DataLoader(data, collate_fn=without_none))


def test_samples_that_a_collate_fn_drops_for_reasons_of_its_own_are_found_one_by_one():
    def small_labels(samples):
        kept = [s for s in samples if s[1] < 2]
        return default_collate(kept)

    samples = open_data(DataLoader(Numbered(), collate_fn=small_labels), skip=True)
    batches = list(samples.batches(units(10, 5)))
    assert [x[:, 0, 0].tolist() for x, _ in batches] == [[0, 1, 3, 4], [6, 7, 9]]
    assert sorted(samples.skipped) == [2, 5, 8]


def test_a_sample_that_cannot_be_read_is_named_by_its_key_too():
    class Files(Broken):
        keys = tuple(f"{i}.png" for i in range(10))

    with pytest.raises(DataError, match=r"sample 7 cannot be read: OSError: .*\(7\.png\)"):
        read(Files("raise"))


def test_indices_outside_the_data_are_refused():
    for unit in ([], [-1], [10]):
        with pytest.raises(InputError, match=r"0 \.\.\. 9"):
            list(open_data(Numbered()).batches([unit]))


def test_trap_14_keys_name_the_samples_they_belong_to(tmp_path):
    class Files(Numbered):
        root = tmp_path
        samples = tuple((str(tmp_path / f"c/{i}.png"), 0) for i in range(10))

    assert open_data(Files()).keys()[:2] == ["c/0.png", "c/1.png"]
    assert open_data(Subset(Files(), [7, 2])).keys() == ["c/7.png", "c/2.png"]
    assert open_data(Numbered()).keys() is None
    short = Files(9)  # ten names for nine samples: none can be trusted
    assert open_data(short).keys() is None


def test_fingerprint_is_the_same_in_another_process_and_for_any_reader():
    code = (
        "import numpy as np, torch, json; from fastconv.data import open_data;"
        "x = torch.arange(600.).reshape(100, 2, 3);"
        "print(json.dumps(open_data(x).fingerprint(), sort_keys=True))"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)]
    assert runs[0] == runs[1]
    x = torch.arange(600.0).reshape(100, 2, 3)
    assert open_data(x).fingerprint() == open_data(x.numpy()).fingerprint()


def test_trap_8_fingerprint_tells_other_data_apart():
    """Another value, resolution, length, label, dtype or name: another fingerprint."""
    x = torch.arange(60.0).reshape(10, 1, 6)
    last, labels = x.clone(), torch.arange(10)
    last[-1, -1, -1] += 1e-3
    others = [
        *(x, last, x.reshape(10, 1, 2, 3), x[:9], x.double()),
        *(TensorDataset(x, labels), TensorDataset(x, labels + 1)),
    ]
    prints = [tuple(map(str, open_data(o).fingerprint().values())) for o in others]
    assert len(set(prints)) == len(others)


def test_fingerprint_covers_every_key():
    class Files(Numbered):
        keys = tuple(f"{i}.png" for i in range(100))

    first, renamed = Files(100), Files(100)
    renamed.keys = (*Files.keys[:50], "other.png", *Files.keys[51:])
    assert open_data(first).fingerprint() != open_data(renamed).fingerprint()
