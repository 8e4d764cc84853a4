"""The forward that hands the captured values over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from fastconv.capture.targets import CaptureTarget
from fastconv.capture.trace import evaluation, explained, single_tensor
from fastconv.errors import FastconvError

Run = Callable[[Tensor], Tensor]


class _Done(BaseException):
    """Ends a forward of which nothing more is wanted; no `except Exception` can stop it."""


def capture_forward(
    model: nn.Module,
    targets: Sequence[CaptureTarget],
    inputs: Tensor,
    on_output: Callable[[int, Tensor], None],
    fused: Container[int] = (),
    on_input: Callable[[int, Tensor], Tensor | None] | None = None,
) -> None:
    """Run the model up to the deepest target, handing over each output as it appears.

    `on_output(i, tensor)` gets what the hooked call of targets[i] returned, [N, C, *spatial],
    before any in-place operation can touch it; it must not keep the tensor, nor write to it. The
    model runs in eval and inference mode. Its modes and hooks are put back also when it raises,
    and its own errors pass through, but for wrong input shapes: these are `InputError`.

    The calls of the targets in `fused` do not run: `on_input(i, input)` does their work, and
    returns what the network goes on with, as `targets[i].fusion` says, if `targets[i].fusion.read`.
    """
    missing = set(range(len(targets)))

    def finished(i: int) -> None:
        missing.discard(i)
        if not missing:
            raise _Done

    def receive(i: int, output: object) -> None:
        tensor = output if isinstance(output, Tensor) else single_tensor(output)
        if tensor is None:
            raise FastconvError(
                f"layer {targets[i].info.name!r} returned one tensor in the probe forward, "
                f"now {type(output).__name__}"
            )
        on_output(i, tensor)
        finished(i)

    def replace(i: int, tensor: Tensor) -> Tensor:
        assert on_input is not None
        value = on_input(i, tensor)
        finished(i)
        if value is None:  # nobody reads it; a reader would fail on the device
            size = (len(tensor), targets[i].info.channels, *targets[i].info.size)
            return tensor.new_empty(size, device="meta")
        return value

    chosen = [i for i in range(len(targets)) if i in fused]
    hooked = [i for i in range(len(targets)) if i not in fused]
    try:
        with (
            _hooks(targets, hooked, receive),
            _replaced(targets, chosen, replace) if chosen else nullcontext(),
            evaluation(model),
            torch.inference_mode(),
            explained(inputs),
        ):
            model(inputs)
    except _Done:
        pass
    if missing:
        name = targets[min(missing)].info.name
        raise FastconvError(
            f"layer {name!r} ran in the probe forward but not now: the model chooses its path by "
            "the data; leave the layer out"
        )


@contextmanager
def _hooks(
    targets: Sequence[CaptureTarget], hooked: Sequence[int], receive: Callable[[int, object], None]
) -> Iterator[None]:
    wanted: dict[nn.Module, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in hooked:
        wanted[targets[i].module][targets[i].index].append(i)
    counts = dict.fromkeys(wanted, 0)

    def leave(module: nn.Module, _: tuple, output: object) -> None:
        index = counts[module]
        counts[module] = index + 1
        for i in wanted[module].get(index, ()):
            receive(i, output)

    handles = []
    try:
        for module in wanted:
            handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replaced(
    targets: Sequence[CaptureTarget],
    chosen: Sequence[int],
    replace: Callable[[int, Tensor], Tensor],
) -> Iterator[None]:
    """Modules whose calls of some indices do something else."""
    calls: dict[nn.Module, dict[int, Run]] = defaultdict(dict)
    for i in chosen:
        fusion = targets[i].fusion
        assert fusion is not None
        calls[targets[i].module][targets[i].index] = partial(replace, i)
        for module, index in fusion.absorbed:
            calls[module][index] = lambda x: x
    try:
        for module, instead in calls.items():
            module.forward = _forward(module.forward, instead)
        yield
    finally:
        for module in calls:
            vars(module).pop("forward", None)


def _forward(original: Run, instead: dict[int, Run]) -> Run:
    count = 0

    def forward(input: Tensor) -> Tensor:
        nonlocal count
        run = instead.get(count, original)
        count += 1
        return run(input)

    return forward
