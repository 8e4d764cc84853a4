"""Data sets, loaders and arrays of every kind give the same rows, or are refused with a reason."""

import re

import h5py
import numpy as np
import pytest
import scipy.sparse
import torch
from helpers.data_sets import Numbered, read
from PIL import Image
from torch import nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    TensorDataset,
    default_collate,
)

from fastconv.data import hint, open_data
from fastconv.data.samples import prepared
from fastconv.errors import DataError, InputError

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


@pytest.mark.parametrize(
    "convert",
    [lambda t: t, lambda t: t.numpy(), TensorDataset],
    ids=["tensor", "numpy", "TensorDataset"],
)
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


def test_indices_outside_the_data_are_refused():
    for unit in ([], [-1], [10]):
        with pytest.raises(InputError, match=r"0 \.\.\. 9"):
            list(open_data(Numbered()).batches([unit]))
