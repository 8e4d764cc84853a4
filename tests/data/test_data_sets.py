import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from fastconv.data import open_data
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
