"""Bringing the model and its batches to where it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastconv.capture.batch import first_tensor, map_tensors
from fastconv.capture.network import require_module
from fastconv.data.samples import prepared
from fastconv.errors import InputError

AHEAD = 2  # batches that a GPU may have before it


class Transfer:
    """Moves batches to a device, in the layout of the run and the dtype of the model.

    To a GPU a batch goes from pinned memory on a stream of its own, while the GPU still computes
    the one before: the host has only queued that, and comes here early. It never gets further
    ahead than AHEAD batches, or inputs would fill the memory of the GPU.
    """

    def __init__(
        self,
        device: torch.device,
        layout: torch.memory_format = torch.preserve_format,
        dtype: torch.dtype | None = None,
    ):
        self._device, self._layout, self._dtype = device, layout, dtype
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._queued: deque[Any] = deque()  # an event after the work of each batch

    def __call__(self, inputs: Any) -> Any:
        """A batch where the model runs; all that is queued so far is work on those before it.

        Bytes travel as they are, and become floating-point numbers where they arrive. Of several
        inputs that holds for the first; the others keep their integers.
        """
        if isinstance(inputs, Tensor):
            return self._moved(inputs)
        first = first_tensor(inputs)
        return map_tensors(inputs, lambda t: self._moved(t) if t is first else self._beside(t))

    def _beside(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self._device)
        return self._laid_out(inputs) if inputs.is_floating_point() else inputs

    def _moved(self, inputs: Tensor) -> Tensor:
        if inputs.dtype.itemsize >= 4:
            inputs = prepared(inputs)
        if self._stream is None or inputs.is_cuda:
            return self._laid_out(inputs.to(self._device))
        compute = torch.cuda.current_stream(self._device)
        self._queued.append(compute.record_event())
        if len(self._queued) > AHEAD:
            self._queued.popleft().synchronize()
        with torch.cuda.stream(self._stream):
            moved = inputs.pin_memory().to(self._device, non_blocking=True)
            moved = self._laid_out(moved)
        compute.wait_stream(self._stream)
        moved.record_stream(compute)  # its memory is not used again before that stream is done
        return moved

    def _laid_out(self, moved: Tensor) -> Tensor:
        moved = prepared(moved)
        if self._dtype is not None and moved.is_floating_point():
            moved = moved.to(self._dtype)
        if self._layout == torch.preserve_format or moved.ndim != 4:
            return moved.contiguous() if self._layout == torch.contiguous_format else moved
        return moved.contiguous(memory_format=self._layout)


def read_later(values: Tensor) -> Callable[[], list[Any]]:
    """Start to copy values to the host; what is returned waits for them, and for nothing later."""
    host = values.to("cpu", non_blocking=True)
    if not values.is_cuda:
        return host.tolist
    copied = torch.cuda.current_stream(values.device).record_event()

    def read() -> list[Any]:
        copied.synchronize()
        return host.tolist()

    return read


@contextmanager
def on_device(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The model on a device (default where it is), and back where it was afterwards.

    Outside the inference mode of a caller: running states are updated in place.

    Raises:
        InputError: no module, or a device that cannot be used.
    """
    require_module(model)
    home = next((p.device for p in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    place = home if device is None else _usable(device)
    with torch.inference_mode(mode=False):
        if place == home:
            yield place
            return
        try:
            model.to(place)
            yield place
        finally:
            model.to(home)


def _usable(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {str(device)!r} cannot be used: {reason}") from error
