"""Batches on their way to a GPU, with streams that only keep a record."""

from __future__ import annotations

import contextlib

import pytest
import torch

from fastconv.run import transfer


class Recorder:
    """A stream and its events."""

    def __init__(self, name: str, log: list[str]):
        self.name, self.log, self.events = name, log, 0

    def record_event(self) -> Recorder:
        self.events += 1
        return Recorder(f"{self.name}-{self.events}", self.log)

    def synchronize(self) -> None:
        self.log.append(f"host waits for {self.name}")

    def wait_stream(self, other: Recorder) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def log(monkeypatch):
    found: list[str] = []
    compute = Recorder("compute", found)
    monkeypatch.setattr(torch.cuda, "Stream", lambda place: Recorder("copy", found))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda place: compute)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, stream: None)
    to = torch.Tensor.to

    def copied(x, place, *, non_blocking=False):
        found.append(f"copy of {len(x)}" if non_blocking else "copy that waits")
        return to(x, "meta")

    monkeypatch.setattr(torch.Tensor, "to", copied)
    return found


def test_the_host_is_at_most_two_batches_ahead(log):
    bring = transfer.Transfer(torch.device("cuda"), torch.channels_last)
    for n in (1, 2, 3, 4):
        assert bring(torch.zeros(n, 3, 2, 2)).is_contiguous(memory_format=torch.channels_last)
    own = [(f"copy of {n}", "compute waits for copy") for n in (1, 2, 3, 4)]
    assert log == [
        *own[0],
        *own[1],
        "host waits for compute-1",  # before the first batch: nothing
        *own[2],
        "host waits for compute-2",  # the work on the first batch, while that on the second runs
        *own[3],
    ]


def test_bytes_travel_as_they_are(log, monkeypatch):
    moved = []
    pin = torch.Tensor.pin_memory
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: moved.append(x.dtype) or pin(x))
    bring = transfer.Transfer(torch.device("cuda"), torch.channels_last)
    for dtype in (torch.uint8, torch.bool, torch.bfloat16, torch.float32, torch.int64):
        there = bring(torch.zeros(2, 3, 4, 4, dtype=dtype))
        assert there.dtype == (dtype if dtype.is_floating_point else torch.float32)
        assert there.is_contiguous(memory_format=torch.channels_last)
    # eight bytes a value become four before they travel
    assert moved == [torch.uint8, torch.bool, torch.bfloat16, torch.float32, torch.float32]


def test_integers_arrive_as_they_were():
    bring = transfer.Transfer(torch.device("cpu"), torch.channels_last)
    x = torch.arange(256, dtype=torch.uint8).view(1, 4, 8, 8)
    assert torch.equal(bring(x), x.float())
    assert bring(x).is_contiguous(memory_format=torch.channels_last)


def test_on_the_cpu_nothing_is_copied():
    x = torch.zeros(2, 3, 4, 4)
    bring = transfer.Transfer(torch.device("cpu"), torch.contiguous_format)
    assert bring(x).data_ptr() == x.data_ptr()
    last = transfer.Transfer(torch.device("cpu"), torch.channels_last)(x)
    assert last.is_contiguous(memory_format=torch.channels_last)
