"""topk_merge: every backend against sorting in Python."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.backend_cases import NATIVE, every_backend, every_isa, needs_native
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import topk_merge
from fastconv.errors import InputError
from fastconv.ops.topk_merge import empty_topk

both_backends = every_backend("topk_merge")


def best(entries, k, *, largest):
    """(value, sample, position) entries: the k best by the total order of the contract."""
    valid = [e for e in entries if math.isfinite(e[0]) and e[1] >= 0]
    ranked = sorted(valid, key=lambda e: (-e[0] if largest else e[0], e[1], e[2]))[:k]
    return ranked + [(math.nan, -1, -1)] * (k - len(ranked))


def columns(rows, device="cpu"):
    """[C][M] entries as the three tensors [C, M]."""
    values = torch.tensor([[e[0] for e in row] for row in rows], dtype=torch.float32)
    samples = torch.tensor([[e[1] for e in row] for row in rows], dtype=torch.int64)
    positions = torch.tensor([[e[2] for e in row] for row in rows], dtype=torch.int64)
    return tuple(t.reshape(len(rows), -1).to(device) for t in (values, samples, positions))


def entries_of(top, channel):
    columns = (t[channel].tolist() for t in top[:3])
    return [(v if v == v else None, s, p) for v, s, p in zip(*columns, strict=True)]


def expected(entries):
    return [(v if v == v else None, s, p) for v, s, p in entries]


def random_rows(channels, count, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, (channels, count), generator=generator).float() / 2
    values[torch.rand(values.shape, generator=generator) < 0.1] = torch.nan
    values[torch.rand(values.shape, generator=generator) < 0.1] = torch.inf
    samples = torch.randint(-1, 9, values.shape, generator=generator)
    positions = torch.randint(0, 9, values.shape, generator=generator)
    return [
        list(zip(*(t[c].tolist() for t in (values, samples, positions)), strict=True))
        for c in range(channels)
    ]


@both_backends
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("channels", "k", "count"), [(1, 1, 1), (3, 9, 4), (17, 5, 64), (65, 3, 0)]
)
def test_agrees_with_sorting(channels, k, count, largest, device, backend):
    top = empty_topk(channels, k, device)
    seen = [[] for _ in range(channels)]
    for step in range(3):
        rows = random_rows(channels, count, step)
        for channel, row in enumerate(rows):
            seen[channel] += row
        top = topk_merge(*top[:3], *columns(rows, device), largest=largest, backend=backend)
    for channel in range(channels):
        assert entries_of(top, channel) == expected(best(seen[channel], k, largest=largest))


@both_backends
def test_source_tells_where_each_entry_came_from(device, backend):
    old = columns([[(5.0, 1, 0), (math.nan, -1, -1), (2.0, 2, 0)]], device)
    new = columns([[(9.0, 3, 0), (math.nan, 4, 0), (5.0, 0, 7)]], device)
    top = topk_merge(*old, *new, backend=backend)
    assert top.values.tolist() == [[9.0, 5.0, 5.0]]
    assert top.source.tolist() == [[3, 5, 0]]  # new 0, new 2 (the lower sample), old 0
    few = topk_merge(*empty_topk(1, 2, device)[:3], *new, backend=backend)
    assert few.source.tolist() == [[2, 4]]
    none = topk_merge(*empty_topk(1, 2, device)[:3], *(t[:, :0] for t in new), backend=backend)
    assert none.source.tolist() == [[-1, -1]]


@both_backends
def test_trap_13_ties_go_to_the_lower_sample_then_position(device, backend):
    rows = [[(1.0, 7, 3), (1.0, 2, 9), (1.0, 2, 4), (1.0, 5, 0)]]
    top = topk_merge(*empty_topk(1, 3, device)[:3], *columns(rows, device), backend=backend)
    assert entries_of(top, 0) == [(1.0, 2, 4), (1.0, 2, 9), (1.0, 5, 0)]


@both_backends
def test_trap_6_nan_never_enters(device, backend):
    rows = [[(math.nan, 0, 0), (-math.inf, 1, 0), (-2.0, 2, 0), (math.inf, 3, 0)]]
    top = topk_merge(*empty_topk(1, 3, device)[:3], *columns(rows, device), backend=backend)
    assert entries_of(top, 0) == [(-2.0, 2, 0), (None, -1, -1), (None, -1, -1)]


@both_backends
def test_trap_4_negative_values_have_their_sample(device, backend):
    rows = [[(-3.0, 4, 1), (-1.0, 6, 2)]]
    top = topk_merge(*empty_topk(1, 1, device)[:3], *columns(rows, device), backend=backend)
    assert entries_of(top, 0) == [(-1.0, 6, 2)]


@needs_native
@every_isa
def test_every_instruction_set_and_every_value_written(isa, monkeypatch):
    old, new = random_rows(33, 4, 1), random_rows(33, 20, 2)
    want = topk_merge(*columns(old), *columns(new), backend="reference")
    like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda t: like(t).fill_(-99))
    got = topk_merge(*columns(old), *columns(new), backend="cpu")
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.nan_to_num(123.0), b.nan_to_num(123.0))


ENTRY = st.tuples(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, 2.5]),
    st.integers(-1, 4),
    st.integers(0, 3),
)


@settings(max_examples=60)
@given(
    rows=st.lists(ENTRY, max_size=12),
    k=st.integers(1, 5),
    cut=st.integers(0, 12),
    largest=st.booleans(),
)
def test_any_split_gives_the_same_entries(rows, k, cut, largest):
    for backend in ("cpu", "reference") if NATIVE else ("reference",):
        top = empty_topk(1, k)
        for part in (rows[:cut], rows[cut:]):
            candidates = columns([part])
            top = topk_merge(*top[:3], *candidates, largest=largest, backend=backend)
        assert entries_of(top, 0) == expected(best(rows, k, largest=largest))


GOOD = {
    "values": torch.zeros(2, 3), "samples": torch.zeros(2, 3, dtype=torch.int64),
    "positions": torch.zeros(2, 3, dtype=torch.int64), "new_values": torch.zeros(2, 5),
    "new_samples": torch.zeros(2, 5, dtype=torch.int64),
    "new_positions": torch.zeros(2, 5, dtype=torch.int64),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.zeros(2, 3).double()}, "values must be torch.float32"),
        ({"samples": torch.zeros(2, 4, dtype=torch.int64)}, r"samples must be .* got .*\[2, 4\]"),
        ({"positions": torch.zeros(2, 3)}, "positions must be torch.int64"),
        ({"new_values": torch.zeros(5)}, "new_values must be"),
        ({"new_positions": torch.zeros(2, 5).int()}, "got torch.int32"),
        (
            {n: GOOD[n][:1] for n in ("new_values", "new_samples", "new_positions")},
            "2 channels are kept, but 1 are given",
        ),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message):
        topk_merge(**{**GOOD, **change})
